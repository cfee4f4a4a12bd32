"""The images that a command line names: files, folders, patterns, tables and lists."""

from __future__ import annotations

import csv
import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dassl.utils import UserError, counted

STDIN = "-"


def find_images(words: Sequence[str], stdin: Iterable[str] = ()) -> list[str]:
    """Paths of all images that the words name, in their order.

    Args:
        words: image files, folders (searched to any depth), patterns such as ``photos/*.jpg``, CSV
            files with a column of paths, or ``-`` for the lines of ``stdin``.

    Raises:
        UserError: a word names nothing, or there is no image at all.
    """
    found: list[str] = []
    for word in words:
        images = list(_images_of(word, stdin))
        if not images:
            what = "the list on standard input" if word == STDIN else word
            raise UserError(f"there are no images in {what}; known suffixes: {_suffixes()}")
        found += images
    if not found:
        raise UserError(
            "no images given: name files, folders, patterns, a CSV file, or - for a list on "
            "standard input"
        )
    return found


def _images_of(word: str, stdin: Iterable[str]) -> Iterator[str]:
    path = Path(os.path.expanduser(word))  # unlike pathlib's, it accepts unknown users
    if word == STDIN:
        yield from (line.strip() for line in stdin if line.strip())
    elif os.path.isdir(path):
        yield from _images_below(path)
    elif path.suffix.lower() == ".csv":
        yield from _images_in_table(path)
    elif os.path.isfile(path):
        yield str(path)
    elif any(mark in word for mark in "*?["):
        yield from _images_matching(str(path))
    else:
        raise UserError(f"there is no image, folder or CSV file {word}")


def _images_below(folder: Path) -> Iterator[str]:
    from datasets._core.folders import images_below, is_image

    hidden: list[str] = []
    for parent, folders, files in os.walk(folder):
        for name in sorted(name for name in folders if name.startswith(".")):
            hidden += images_below(Path(parent, name))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (str(Path(parent, name)) for name in sorted(files) if is_image(name))
    if hidden:
        images = counted(len(hidden), "image")
        where = f"in hidden folders of {folder}, such as {hidden[0]}"
        print(f"not read: {images} {where}", file=sys.stderr)


def _images_matching(pattern: str) -> Iterator[str]:
    from datasets._core.folders import is_image

    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isfile(path) and is_image(os.path.basename(path)):
            yield path


def _images_in_table(path: Path) -> Iterator[str]:
    """The column of paths of a CSV file: by its name, or the first one if no name is known.

    Relative paths start from the folder of the file.
    """
    from datasets._core.folders import PATH_COLUMNS

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(field.strip() for field in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the table {path}: {error}") from None
    head = [field.strip().lower() for field in rows[0]] if rows else []
    column = next((head.index(name) for name in PATH_COLUMNS if name in head), None)
    if column is None and head and not Path(head[0]).suffix:
        raise UserError(
            f"{path} has no column of paths: its columns are {', '.join(head)}, none of them is "
            f"{', '.join(PATH_COLUMNS)}"
        )
    for row in rows if column is None else rows[1:]:
        if len(row) > (column or 0):
            yield os.path.join(path.parent, row[column or 0].strip())


def _suffixes() -> str:
    from datasets._core.folders import IMAGE_SUFFIXES

    return " ".join(IMAGE_SUFFIXES)
