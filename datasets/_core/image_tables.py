"""Datasets that a table lists: reading it, its tasks and classes, dividing its images."""

from __future__ import annotations

import csv
import io
import posixpath
import random
import re
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

from dassl.data import SPLITS, Datum
from dassl.utils import UserError

from .annotations import read_text
from .base import FewShotDataset
from .splits import Split, is_text, stays_inside

SPELLINGS = {**{part: part for part in SPLITS}, "valid": "val", "validation": "val"}


class ImageTable(FewShotDataset):
    """Base of datasets whose labels are in a CSV, ``DATASET.MANIFEST``, in the data folder.

    A subclass reads the rows; tasks keep the order of their first rows, classes are sorted.
    """

    image_dir = ""

    @property
    def table(self) -> Path:
        """The path of the table."""
        return self.root / self.cfg.DATASET.MANIFEST

    @property
    def annotations(self) -> tuple[str, ...]:
        """The table."""
        return (self.cfg.DATASET.MANIFEST,)

    @property
    def split_name(self) -> str:
        """The dataset, and the table's name unless it is manifest.csv: a split per table."""
        table = re.sub(r"[^\w.-]+", "-", self.cfg.DATASET.MANIFEST.removesuffix(".csv"))
        own = super().split_name
        return own if table == "manifest" else f"{own}-{table}"

    @property
    def task_name(self) -> str:
        """The folder's name, in words, where the table names no task."""
        return self.root.name.replace("_", " ").strip() or "kind of image"

    @property
    def official(self) -> bool:
        """Whether the table says which images are for train, val and test."""
        return bool(self.rows[0]["split"])

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The lines of the table that are not empty."""
        rows = self.rows_of(self.table)
        if not rows:
            raise UserError(f"{self.table} lists no images below its first line")
        _refuse_twice(rows)
        _refuse_backslashes(rows, self.root)
        if rows[0]["split"] and not any(row["split"] == "test" for row in rows):
            raise UserError(f"{self.table} has no image for test; name some in the column split")
        return rows

    def rows_of(self, path: Path) -> list[dict[str, str]]:
        """path, class, task, split and place of every label in the table."""
        raise NotImplementedError(f"{type(self).__name__} must override rows_of")

    def read(self, rng: random.Random) -> Split:
        """The split of the table, or a new one."""
        classes: dict[str, set[str]] = {}
        for row in self.rows:
            classes.setdefault(row["task"], set()).add(row["class"])
        tasks = list(classes)
        names = [tuple(sorted(classes[task])) for task in tasks]
        numbers = {task: t for t, task in enumerate(tasks)}
        labels = [{name: label for label, name in enumerate(own)} for own in names]
        split = Split(names, tasknames=tuple(tasks) if tasks != [""] else ())
        groups: dict[tuple[int, int], list[Datum]] = {}
        for row in self.rows:
            task = numbers[row["task"]]
            item = Datum(row["path"], labels[task][row["class"]], task=task)
            if row["split"]:
                split.parts[SPLITS.index(row["split"])].append(item)
            groups.setdefault((task, item.label), []).append(item)
        if not self.official:
            self.divide(split, groups, rng)
        return split

    def divide(
        self, split: Split, groups: dict[tuple[int, int], list[Datum]], rng: random.Random
    ) -> None:
        """Divide the images into train, val and test.

        Args:
            split: its lists are filled.
            groups: the images by task and label.
        """
        for task, label in sorted(groups):
            where = f"class {split.classnames[task][label]!r} of {self.table}"
            split.divide_class(groups[task, label], rng, where)


def read_table(path: Path) -> list[tuple[list[str], str]]:
    """The fields of every line of a CSV that is not empty, and the line's place for messages.

    Raises:
        UserError: no such file, a line that is no CSV, or the first line stands again.
    """
    if not path.is_file():
        raise UserError(
            f"there is no table {path}; DATASET.MANIFEST names a CSV file in the data folder"
        )
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    lines: list[tuple[list[str], str]] = []
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            where = f"{path}:{reader.line_num}"
            if lines and fields == lines[0][0]:
                raise UserError(f"{where}: the line with the names of the columns is repeated")
            lines.append((fields, where))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}") from None
    return lines


def names_of_columns(fields: list[str], where: str) -> list[str]:
    """The names in the first line of a table."""
    names = [field.strip() for field in fields]
    while names and not names[-1]:  # a spreadsheet's empty columns
        names.pop()
    line = ",".join(fields)
    if guess := next((sep for sep in ";\t|" if sep in line and len(fields) == 1), ""):
        raise UserError(
            f"{where}: this looks separated by {guess!r}; fields must be separated by ',': save "
            "the table as a CSV with commas"
        )
    return names


def fields_of(head: list[str], fields: list[str], where: str) -> dict[str, str]:
    """The fields of a line by column; more than one blank inside a field counts as one."""
    while len(fields) > len(head) and not fields[-1].strip():
        fields = fields[:-1]
    if len(fields) != len(head):
        raise UserError(f"{where}: expected {len(head)} fields ({', '.join(head)}): {fields!r}")
    return {
        k: v.strip() if k == "path" else _one_blank(v) for k, v in zip(head, fields, strict=True)
    }


@lru_cache(maxsize=4096)  # names of classes and tasks repeat from line to line
def _one_blank(text: str) -> str:
    return " ".join(text.split())


_is_name = lru_cache(maxsize=4096)(is_text)


def checked_row(row: dict[str, str], named: Iterable[str], where: str) -> dict[str, str]:
    """A row with a plain path and split, and its place in the table.

    Args:
        named: the columns that must not be empty.
    """
    row = {**row, "where": where}
    for name in named:
        if name == "split" and not row[name]:
            raise UserError(
                f"{where}: the split is empty; write train, val or test, or leave out the column "
                "split for a random division"
            )
        if not _is_name(row[name]):
            raise UserError(f"{where}: the {name} is {row[name]!r}, which is no name")
    inside = stays_inside(row["path"]) and "://" not in row["path"]
    row["path"] = posixpath.normpath(row["path"])
    if not inside or row["path"].startswith("~"):
        raise UserError(
            f"{where}: the path {row['path'][:80]!r} must be relative to the folder of the table "
            "and stay inside it"
        )
    if row["split"] and row["split"].lower() not in SPELLINGS:
        raise UserError(f"{where}: the split {row['split']!r} is not train, val or test")
    row["split"] = SPELLINGS.get(row["split"].lower(), "")
    return row


def _refuse_twice(rows: list[dict[str, str]]) -> None:
    """Refuse an image with two classes in one task."""
    seen: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        first = seen.setdefault((row["path"], row["task"]), row)
        if first is not row:
            contradicts = f", as {first['class']!r} there" if first["class"] != row["class"] else ""
            raise UserError(
                f"{row['where']}: {row['path']!r} is already listed in {first['where']}"
                f"{contradicts}"
            )


def _refuse_backslashes(rows: list[dict[str, str]], root: Path) -> None:
    """Refuse Windows paths; a backslash in the name of an existing file is accepted."""
    for row in rows:
        if "\\" in row["path"] and not (root / row["path"]).exists():
            raise UserError(
                f"{row['where']}: the path {row['path'][:80]!r} has backslashes; write it with "
                f"forward slashes: {posixpath.normpath(row['path'].replace(chr(92), '/'))[:80]!r}"
            )
