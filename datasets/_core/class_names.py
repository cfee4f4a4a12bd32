"""Class names that a user writes into a file beside the images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from dassl.utils import UserError

from .annotations import read_text

FILES = ("classnames.yaml", "classnames.txt")
STEMS = ("classnames", "class_names", "classes")


def read_class_names(root: Path, folders: list[str]) -> dict[str, str]:
    """Class name by folder, from ``classnames.yaml`` or ``classnames.txt``; {} without them.

    The YAML file maps folders to names. The text file has lines ``folder: name`` for some of the
    folders, or a name per line for all in sorted order; folders that are numbers are sorted as
    numbers, so that line i + 1 names folder i of the folders 0, 1, 2, ...

    Raises:
        UserError: a line that is no name, a folder twice, or one that does not exist.
    """
    _report_other_files(root)
    for file, read in zip(FILES, (_yaml_lines, _text_lines), strict=True):
        if not (path := root / file).is_file():
            continue
        names: dict[str, str] = {}
        for number, folder, name in read(path, folders):
            where = f"{path}:{number}"
            if folder not in folders:
                raise UserError(f"{where}: there is no class folder {folder!r}")
            if not name:
                raise UserError(f"{where}: the class folder {folder!r} gets no name")
            if folder in names:
                raise UserError(f"{where}: the class folder {folder!r} is named a second time")
            names[folder] = name
        return names
    return {}


def _report_other_files(root: Path) -> None:
    """Print which files of class names are not read; the YAML file wins over the text file."""
    files = [p for p in sorted(root.iterdir()) if p.stem.lower() in STEMS and p.is_file()]
    read = next((file for file in FILES if root / file in files), "")
    for path in files:
        if path.name != read:
            print(f"{path} is not read; class names are read from {read or ' or '.join(FILES)}")


def _yaml_lines(path: Path, folders: list[str]) -> Iterator[tuple[int, str, str]]:
    """Line number, folder and name, both as they are written: ``no`` is a word, not false."""
    try:
        root = yaml.compose(read_text(path), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} must map class folders to names, as in  n01440764: tench")
    for key, value in root.value:
        for node in (key, value):
            if not isinstance(node, yaml.ScalarNode):
                kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
                raise UserError(
                    f"{path}:{node.start_mark.line + 1}: a {kind} is no name; write one line per "
                    "class folder, as in  n01440764: tench"
                )
        yield key.start_mark.line + 1, key.value, " ".join(value.value.split())


def _text_lines(path: Path, folders: list[str]) -> Iterator[tuple[int, str, str]]:
    """Line number, folder and name of each line that is not empty."""
    lines = [
        (number, line.strip())
        for number, line in enumerate(read_text(path).split("\n"), start=1)
        if line.strip()
    ]
    if any(": " in line for _, line in lines):
        for number, line in lines:
            folder, _, name = line.partition(": ")
            yield number, folder.strip(), name.strip()
        return
    if len(lines) != len(folders):
        raise UserError(
            f"{path} has {len(lines)} names, but there are {len(folders)} class folders; give "
            "one name per folder, in sorted order, or lines  folder: name"
        )
    _refuse_other_separators(path, lines, folders)
    if all(name.isascii() and name.isdigit() for name in folders):
        folders = sorted(folders, key=lambda name: (int(name), name))
    for folder, (number, line) in zip(folders, lines, strict=True):
        yield number, folder, line


def _refuse_other_separators(path: Path, lines: list, folders: list[str]) -> None:
    """Refuse lines that all begin with the name of a folder, but not as ``folder: name``."""
    pattern = re.compile(rf"({'|'.join(map(re.escape, folders))})\s*[\t:,;=]")
    numbered = re.compile(rf"({'|'.join(map(re.escape, folders))})\s")  # n01440764 tench
    digits = all(any(map(str.isdigit, folder)) for folder in folders)
    if all(pattern.match(line) or (digits and numbered.match(line)) for _, line in lines):
        raise UserError(
            f"{path}:{lines[0][0]}: {lines[0][1][:40]!r} begins with the name of a class folder; "
            "write  folder: name"
        )
