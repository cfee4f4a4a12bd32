"""Reading the annotation files that datasets come with; a bad line is named by its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dassl.utils import UserError, read_json


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path} as UTF-8 ({error}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from None


def read_line(path: Path) -> str:
    """The first line of a text file, without the space around it."""
    return read_text(path).strip().partition("\n")[0].strip()


def read_rows(path: Path, shape: str, sep: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """The fields of each line that is not empty, and where it is: ``file:line``.

    Args:
        shape: names of the fields, such as "image class"; the last takes the rest of a line.
        sep: between the fields; None is any white space.
    """
    count = len(shape.split())
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.strip("\r\n").split(sep, count - 1)]
        if len(fields) != count or not all(fields):
            raise UserError(f"{path}:{number}: expected {shape!r}, not {line.strip()[:80]!r}")
        yield f"{path}:{number}", fields


def class_index(text: str, count: int, where: str) -> int:
    """A class number of a file, which counts from 1, as a label, which counts from 0."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= count):
        raise UserError(f"{where}: {text[:40]!r} is not a class number from 1 to {count}")
    return int(text) - 1


def read_mat(path: Path, key: str) -> Any:
    """One variable of a MATLAB file, with structs as records and no needless dimensions."""
    from scipy.io import loadmat  # here, since it takes a moment and few datasets need it

    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=True)
    except Exception as error:  # a damaged file can make it raise nearly anything
        raise UserError(f"cannot read {path}: {error}") from None
    if key not in content:
        known = ", ".join(name for name in content if not name.startswith("__"))
        raise UserError(f"{path} has no variable {key!r}; it holds {known or 'nothing'}")
    return np.atleast_1d(content[key])


def read_names(path: Path) -> dict[str, str]:
    """The names in a JSON object of texts; a key may appear once."""
    pairs = read_json(path, object_pairs_hook=tuple)
    if not isinstance(pairs, tuple) or not all(isinstance(name, str) for _, name in pairs):
        raise UserError(f"{path} must be a JSON object of texts")
    counts = Counter(key for key, _ in pairs)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise UserError(f"{path} has the key {twice[0]!r} twice")
    return dict(pairs)
