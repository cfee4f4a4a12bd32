"""Manifest: a user's own images, listed in a table."""

from __future__ import annotations

import csv
import io
import posixpath
import random
import re
from functools import cached_property
from pathlib import Path

from dassl.data import DATASET_REGISTRY, SPLITS, Datum
from dassl.utils import UserError

from ._core.annotations import read_text
from ._core.base import FewShotDataset
from ._core.folders import is_image
from ._core.splits import Split, is_text, stays_inside

COLUMNS = ("path", "class", "task", "split")
SPELLINGS = {**{part: part for part in SPLITS}, "valid": "val", "validation": "val"}


@DATASET_REGISTRY.register()
class Manifest(FewShotDataset):
    """Your own images, listed in a CSV: path, class and, optionally, task and split.

    The table is ``DATASET.MANIFEST`` in the data folder; its first line names the columns, in any
    order, and paths are relative to the data folder. Tasks keep the order of their first rows;
    classes are sorted. ``split`` is train, val or test; without it each class of each task is
    divided 50/20/30. An image may have a row per task.
    """

    image_dir = ""

    def find_root(self, cfg) -> Path:
        """The data folder; the table is in it."""
        self._file = cfg.DATASET.MANIFEST
        return super().find_root(cfg)

    @property
    def annotations(self) -> tuple[str, ...]:
        """The table."""
        return (self._file,)

    @property
    def split_name(self) -> str:
        """Manifest, and the table's name unless it is manifest.csv: a split per table."""
        table = re.sub(r"[^\w.-]+", "-", self._file.removesuffix(".csv"))
        return "Manifest" if table == "manifest" else f"Manifest-{table}"

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
        path = self.root / self._file
        if not path.is_file():
            raise UserError(
                f"there is no table {path}; DATASET.MANIFEST names a CSV file in the data folder"
            )
        reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        rows, head, first = [], None, None
        try:
            for fields in reader:
                if not any(field.strip() for field in fields):
                    continue
                where = f"{path}:{reader.line_num}"
                if head is None:
                    head, first = _head(fields, where), fields
                elif fields == first:
                    raise UserError(f"{where}: the line with the names of the columns is repeated")
                else:
                    rows.append(_row(head, fields, where))
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: {error}") from None
        if not rows:
            raise UserError(f"{path} lists no images; its first line names {', '.join(COLUMNS)}")
        _refuse_twice(rows, path)
        _refuse_backslashes(rows, self.root)
        if rows[0]["split"] and not any(row["split"] == "test" for row in rows):
            raise UserError(f"{path} has no image for test; name some in the column split")
        return rows

    def read(self, rng: random.Random) -> Split:
        """The split of the table, or a new one."""
        classes: dict[str, set[str]] = {}
        for row in self.rows:
            classes.setdefault(row["task"], set()).add(row["class"])
        tasks = list(classes)
        names = [tuple(sorted(classes[task])) for task in tasks]
        split = Split(names, tasknames=tuple(tasks) if tasks != [""] else ())
        groups: dict[tuple[int, int], list[Datum]] = {}
        for row in self.rows:
            task = tasks.index(row["task"])
            item = Datum(row["path"], names[task].index(row["class"]), task=task)
            if row["split"]:
                split.parts[SPLITS.index(row["split"])].append(item)
            groups.setdefault((task, item.label), []).append(item)
        if not self.official:
            for task, label in sorted(groups):
                where = f"class {names[task][label]!r} of {self.root / self._file}"
                split.divide_class(groups[task, label], rng, where)
        return split


def _head(fields: list[str], where: str) -> list[str]:
    head = [field.strip().lower() for field in fields]
    while head and not head[-1]:  # a spreadsheet's empty columns
        head.pop()
    line = ",".join(fields)
    if guess := next((sep for sep in ";\t|" if sep in line and len(fields) == 1), ""):
        raise UserError(
            f"{where}: this looks separated by {guess!r}; fields must be separated by ',': save "
            "the table as a CSV with commas"
        )
    if not set(head) & set(COLUMNS) and any(map(is_image, head)):
        raise UserError(
            f"{where}: this looks like an image, so the table has no header; its first line must "
            "name the columns, such as  path,class"
        )
    if set(head) - set(COLUMNS) or not {"path", "class"} <= set(head) or len(set(head)) < len(head):
        raise UserError(
            f"{where}: the first line must name the columns path, class and, if wanted, task and "
            f"split, but is {','.join(fields)[:80]!r}"
        )
    return head


def _row(head: list[str], fields: list[str], where: str) -> dict[str, str]:
    while len(fields) > len(head) and not fields[-1].strip():
        fields = fields[:-1]
    if len(fields) != len(head):
        raise UserError(f"{where}: expected {len(head)} fields ({', '.join(head)}): {fields!r}")
    row = dict.fromkeys(COLUMNS, "") | {
        k: v.strip() if k == "path" else " ".join(v.split())
        for k, v in zip(head, fields, strict=True)
    }
    row["where"] = where
    for name in ("path", "class", *(key for key in ("task", "split") if key in head)):
        if not is_text(row[name]):
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


def _refuse_twice(rows: list[dict[str, str]], path: Path) -> None:
    """Refuse an image with two classes in one task."""
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        key = row["path"], row["task"]
        if key in seen:
            raise UserError(f"{row['where']}: {row['path']!r} is already listed in {seen[key]}")
        seen[key] = row["where"]


def _refuse_backslashes(rows: list[dict[str, str]], root: Path) -> None:
    """Refuse Windows paths; a backslash in the name of an existing file is accepted."""
    for row in rows:
        if "\\" in row["path"] and not (root / row["path"]).exists():
            raise UserError(
                f"{row['where']}: the path {row['path'][:80]!r} has backslashes; write it with "
                f"forward slashes: {posixpath.normpath(row['path'].replace(chr(92), '/'))[:80]!r}"
            )
