"""Class names that a user writes into a file beside the images."""

from __future__ import annotations

from pathlib import Path

import yaml

from dassl.utils import UserError

from .annotations import read_text

FILES = ("classnames.yaml", "classnames.txt")


def read_class_names(root: Path, folders: list[str]) -> dict[str, str]:
    """Class name by folder, from ``classnames.yaml`` or ``classnames.txt``; {} without them.

    The YAML file maps folders to names. The text file has a name per line, for the folders in
    sorted order, or lines ``folder: name`` for some of them.
    """
    for file, read in zip(FILES, (_from_yaml, _from_text), strict=True):
        if (path := root / file).is_file():
            return read(path, folders)
    return {}


def _from_yaml(path: Path, folders: list[str]) -> dict[str, str]:
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must map class folders to names, as in  n01440764: tench")
    names = {str(key): str(value).strip() for key, value in content.items()}
    for folder, name in names.items():
        _check(str(path), folder, name, folders)
    return names


def _from_text(path: Path, folders: list[str]) -> dict[str, str]:
    lines = [
        (f"{path}:{number}", line.strip())
        for number, line in enumerate(read_text(path).split("\n"), start=1)
        if line.strip()
    ]
    if any(": " in line for _, line in lines):
        names = {}
        for where, line in lines:
            folder, _, name = (part.strip() for part in line.partition(": "))
            _check(where, folder, name, folders)
            names[folder] = name
        return names
    if len(lines) != len(folders):
        raise UserError(
            f"{path} has {len(lines)} names, but there are {len(folders)} class folders; give "
            "one name per folder, in sorted order, or lines  folder: name"
        )
    return dict(zip(folders, (line for _, line in lines), strict=True))


def _check(where: str, folder: str, name: str, folders: list[str]) -> None:
    if folder not in folders:
        raise UserError(f"{where}: there is no class folder {folder!r}")
    if not name:
        raise UserError(f"{where}: the class folder {folder!r} gets no name")
