"""Files of a run, with errors that name the file and the key that is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from dassl.utils import UserError

SCHEMA = 1
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(folder: Path) -> dict:
    """The configuration of a run, as far as it is recorded.

    Raises:
        UserError: the file is there, but is no YAML of keys and values.
    """
    path = folder / "config.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).split("\n")[0]
        raise UserError(f"{path} cannot be read as YAML: {first}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values")
    return content


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_percentage(value: Any) -> bool:
    """Whether a value is None or a number from 0 to 100."""
    return value is None or (is_number(value) and 0 <= value <= 100)


class Reader:
    """Looks up dotted keys in a record, with errors that name the file and the key."""

    def __init__(self, file: Path, content: Any):
        self.file, self.content = file, content
        if not isinstance(content, dict):
            raise UserError(f"{file} must hold keys and values, not a {type(content).__name__}")
        if content.get("schema") != SCHEMA:
            raise self.error("schema", f"is {content.get('schema')!r}; this version reads {SCHEMA}")

    def error(self, key: str, what: str) -> UserError:
        """What is wrong with a key, to be raised."""
        return UserError(f"{self.file}: {key} {what}")

    def get(self, key: str, kind: type | None = None) -> Any:
        """The value at a dotted key, of a certain type."""
        node = self.content
        for part in key.split("."):
            try:
                node = node[int(part)] if isinstance(node, list) else node[part]
            except (KeyError, TypeError):
                raise self.error(key, "is missing") from None
        if kind is not None and (not isinstance(node, kind) or isinstance(node, bool)):
            raise self.error(key, f"must be of type {kind.__name__}, but is {node!r}")
        return node

    def percentage(self, key: str) -> float | None:
        """The percentage at a dotted key; None where there is no test image."""
        value = self.get(key)
        if not is_percentage(value):
            raise self.error(key, f"must be a percentage, but is {value!r}")
        return value

    def number(self, key: str) -> float:
        """The finite number at a dotted key."""
        value = self.get(key)
        if not is_number(value):
            raise self.error(key, f"must be a number, but is {value!r}")
        return value
