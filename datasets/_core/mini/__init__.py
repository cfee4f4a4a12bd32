"""Miniature datasets in the original layouts, so that everything runs without a download.

The images are coloured noise whose colours depend on the class: enough to try things out and for
tests, but not for measurements.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dassl.data import DATASET_REGISTRY
from dassl.utils import UserError

from ..base import FewShotDataset, TaskGroup
from .layouts import MAKERS, class_folders

MARK = "miniature.txt"
MIN_PER_CLASS = 4  # the fewest that can be split 50/20/30


def is_mini(folder: Path) -> bool:
    """Whether a dataset's folder was written here."""
    return (folder / MARK).is_file()


def members_of(cls: type) -> list[type]:
    """The single datasets of a suite, or of a dataset itself."""
    if issubclass(cls, TaskGroup) and cls.members:
        return [leaf for member in cls.members for leaf in members_of(member)]
    return [cls]


def make_mini(name: str, root: Path, per_class: int = 6) -> list[Path]:
    """Write a dataset, or those of a suite, under ``root``; miniatures already there stay.

    Returns:
        The folders of the datasets.

    Raises:
        UserError: an unknown name, a dataset without files, or a folder that exists already.
    """
    cls = DATASET_REGISTRY.get(name)
    if per_class < MIN_PER_CLASS:
        raise UserError(f"a class needs {MIN_PER_CLASS} images at least, not {per_class}")
    leaves = members_of(cls)
    for leaf in leaves:
        if leaf.__name__ not in MAKERS and not _has_folders(leaf):
            raise UserError(
                f"{leaf.__name__} has no files of its own, or none of images in classes; there is "
                "no miniature of it"
            )
    return [_make(leaf, root, per_class) for leaf in leaves]


def _has_folders(cls: type) -> bool:
    return issubclass(cls, FewShotDataset) and bool(cls.dataset_dir)


def _make(cls: type, root: Path, per_class: int) -> Path:
    directory = getattr(cls, "dataset_dir", "")
    target = root / directory
    if is_mini(target):
        return target
    if target.exists() and (directory or any(target.iterdir())):
        raise UserError(f"{target} exists already and is no miniature; give another folder")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=root) as scratch:
        maker = MAKERS.get(cls.__name__, class_folders)
        names = maker(cls, Path(scratch, directory), per_class)
        text = (
            f"A miniature of {cls.__name__}, whose images are noise. Its class names are {names}."
        )
        Path(scratch, directory, MARK).write_text(f"{text}\n", encoding="utf-8")
        for path in sorted(Path(scratch).iterdir()):
            os.replace(path, root / path.name)
    return target
