"""A yacs node with inheritance between YAML files and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode as _CfgNode

from dassl.utils import UserError, unknown_name


class CfgNode(_CfgNode):
    """A yacs node whose YAML files can name the files that they extend.

    Keys can be changed but not invented; a value keeps the type of its default, except that an
    integer may stand for a float and a list for a tuple.
    """

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        """Merge a YAML file; its ``_BASE_`` (one path or a list, relative to it) comes first."""
        self._merge_file(Path(cfg_filename), seen=())

    def _merge_file(self, path: Path, seen: tuple[Path, ...]) -> None:
        if path.resolve() in seen:
            raise UserError(f"{path}: _BASE_ leads back to the file itself")
        content = read_yaml(path)
        bases = content.pop("_BASE_", [])
        for base in [bases] if isinstance(bases, str) else bases:
            self._merge_file(path.parent / base, (*seen, path.resolve()))
        self.merge_from_dict(content, where=f"{path}: ")

    def merge_from_list(self, cfg_list: list) -> None:
        """Merge ``[KEY, VALUE, KEY, VALUE, ...]`` as given on the command line."""
        if len(cfg_list) % 2:
            raise UserError(
                f"overrides come in pairs KEY VALUE, but {cfg_list[-1]!r} stands alone in "
                f"{' '.join(map(str, cfg_list))!r}"
            )
        for key, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
            nested: Any = value  # a string until the type of the default is known
            for part in reversed(str(key).split(".")):
                nested = {part: nested}
            self.merge_from_dict(nested)

    def merge_from_other_cfg(self, cfg_other: _CfgNode) -> None:
        """Merge another node."""
        self.merge_from_dict(cfg_other)

    def merge_from_dict(self, values: dict, where: str = "") -> None:
        """Merge nested plain values; errors start with ``where`` and name the whole key."""
        if self.is_frozen():
            raise AttributeError("the configuration is frozen; call defrost() first")
        _merge(self, values, (), where)

    def to_dict(self) -> dict:
        """Plain nested dicts, lists and scalars, for YAML and JSON."""
        return {k: v.to_dict() if isinstance(v, CfgNode) else _plain(v) for k, v in self.items()}


def read_yaml(path: Path) -> dict:
    """The mapping in a YAML file; {} if it is empty."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no configuration file {path}{_neighbours(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration file {path}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values, but holds a {type(content).__name__}")
    return content


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    names = sorted(p.name for p in path.parent.glob("*.yaml"))
    return f"; {path.parent} holds {', '.join(names) or 'no YAML file'}"


def _merge(node: CfgNode, values: dict, path: tuple[str, ...], where: str) -> None:
    for key, value in values.items():
        full = ".".join((*path, str(key)))
        if key not in node:
            raise UserError(f"{where}{unknown_name('config key', full, _all_keys(node, path))}")
        old = node[key]
        if isinstance(old, _CfgNode):
            if not isinstance(value, dict):
                raise UserError(f"{where}{full} holds the keys {', '.join(old)}; got {value!r}")
            _merge(old, value, (*path, str(key)), where)
        else:
            node[key] = _coerce(value, old, where + full)


def _coerce(value: Any, old: Any, where: str) -> Any:
    """``value`` in the type of the default ``old``, or an error."""
    if isinstance(value, str) and not isinstance(old, str):
        value = CfgNode._decode_cfg_value(value)
    if isinstance(old, (tuple, list)) and isinstance(value, (tuple, list)):
        return type(old)(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(old):
        return value
    if isinstance(old, str) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # a name that looks like a number
    raise UserError(
        f"{where} takes a {type(old).__name__} such as {old!r}, but got {value!r} "
        f"({type(value).__name__})"
    )


def _all_keys(node: CfgNode, path: tuple[str, ...]) -> list[str]:
    return [".".join((*path, key)) for key in node]


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value
