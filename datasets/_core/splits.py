"""Splits of a dataset into train, val and test: drawing them, and reading and writing them.

Three formats are read: ``own`` (made here), ``zhou`` (CoOp's ``split_zhou_*.json``) and ``dk``
(SoftCPT's ``split_dk_*.json``). Paths are relative to the image folder, with forward slashes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dassl.data import SPLITS, Datum
from dassl.utils import UserError, read_json
from dassl.utils.hashes import hash_json
from dassl.utils.words import shorten

SHARES = (0.5, 0.2, 0.3)  # of the images of a class, in train, val and test
ENTRY = {  # what an item looks like, for the messages
    "own": "[path, label, task]",
    "zhou": "[path, label, class name]",
    "dk": "[path, [labels], [task ids]]",
}


@dataclass
class Split:
    """The three lists of a dataset; ``impath`` is relative to the image folder.

    Args:
        classnames: the class names of each task, in the order of their labels.
        tasknames: the name of each task; empty if the split does not know them.
    """

    classnames: list[tuple[str, ...]]
    train: list[Datum] = field(default_factory=list)
    val: list[Datum] = field(default_factory=list)
    test: list[Datum] = field(default_factory=list)
    tasknames: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """train, val and test."""
        return self.train, self.val, self.test

    @property
    def _tasks(self) -> Sequence[str]:
        """The name of each task, or its number."""
        return self.tasknames or [str(t) for t in range(len(self.classnames))]

    def classes_by_task(self) -> dict[str, set[str]]:
        """The class names of each task."""
        return {task: set(names) for task, names in zip(self._tasks, self.classnames, strict=True)}

    def names_by_image(self) -> dict[tuple[str, str], str]:
        """Class name by relative path and task name."""
        tasks = self._tasks
        return {
            (d.impath, tasks[d.task]): self.classnames[d.task][d.label]
            for part in self.parts
            for d in part
        }

    def divide_class(self, items: Sequence[Datum], rng: random.Random, where: object) -> None:
        """Divide the images of one class 50/20/30 in an order drawn from ``rng``.

        Args:
            where: the folder to name if there are too few images.
        """
        items = list(items)
        rng.shuffle(items)
        n_train, n_val = (round(share * len(items)) for share in SHARES[:2])
        pieces = items[:n_train], items[n_train : n_train + n_val], items[n_train + n_val :]
        if not all(pieces):
            raise UserError(
                f"{where} has {len(items)} images, too few to be divided 50/20/30 into train, "
                "val and test; a class needs 4 at least"
            )
        for part, piece in zip(self.parts, pieces, strict=True):
            part += piece

    def hold_out(self, items: Iterable[Datum], rng: random.Random, where: object) -> None:
        """Give 20 % of the images of each class to val and the others to train.

        Classes come in the order of their labels.

        Args:
            where: the list to name if a class has too few images.
        """
        groups: dict[tuple[int, int], list[Datum]] = {}
        for item in items:
            groups.setdefault((item.task, item.label), []).append(item)
        for task, label in sorted(groups):
            group = groups[task, label]
            rng.shuffle(group)
            n_val = round(0.2 * len(group))
            if not n_val:
                raise UserError(
                    f"{where} has {len(group)} training images of class "
                    f"{self.classnames[task][label]!r}, too few to hold 20 % of them out for "
                    "val; a class needs 3 at least"
                )
            self.val += group[:n_val]
            self.train += group[n_val:]


def hash_lists(*parts: Iterable[Datum]) -> str:
    """sha256 over the relative paths, labels and tasks of lists of images."""
    return hash_json([[[d.impath, d.label, d.task] for d in part] for part in parts])


def to_json(split: Split) -> dict:
    """The ``own`` format."""
    lists = {
        name: [[d.impath, d.label, d.task] for d in part]
        for name, part in zip(SPLITS, split.parts, strict=True)
    }
    content = {"classnames": [list(names) for names in split.classnames], **lists}
    content["tasknames"] = list(split.tasknames)
    return {"format": "own", "hash": hash_json(content), **content}


def read_split(path: Path, kind: str) -> Split:
    """Read a split file.

    Args:
        kind: own, zhou or dk.

    Raises:
        UserError: the file holds no such split; the message says why.
    """
    content, check = read_json(path), _Checker(path)
    check(isinstance(content, dict), "it must be an object with the lists train, val and test")
    for part in SPLITS:
        check(isinstance(content.get(part), list), f"it must hold a list {part!r}")
    try:
        return _READERS[kind](content, check)
    except RecursionError:
        raise UserError(f"{path} is not a usable split: it is nested too deeply") from None


class _Checker:
    """Raises errors that name the split file."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, condition: bool, message: str) -> None:
        if not condition:
            raise UserError(f"{self.path} is not a usable split: {message}")

    def names(self, value: Any, where: str) -> tuple[str, ...]:
        """A list of texts."""
        usable = isinstance(value, list) and all(is_text(name) for name in value)
        self(usable, f"{where} must be a list of names, not {shorten(repr(value))}")
        return tuple(value)

    def items(self, content: dict, kind: str, parse: Callable) -> list[list[Datum]]:
        """The three lists; ``parse`` turns an entry into images, or None if it cannot."""
        parts = []
        for part in SPLITS:
            items: list[Datum] = []
            for i, entry in enumerate(content[part]):
                found = parse(entry) if isinstance(entry, list) and len(entry) == 3 else None
                if not found:
                    self(False, f"{part}[{i}] must be {ENTRY[kind]}, not {shorten(repr(entry))}")
                if not stays_inside(entry[0]):
                    self(
                        False,
                        f"{part}[{i}] has the path {shorten(repr(entry[0]))}; it must be relative "
                        "to the image folder and stay inside it",
                    )
                items += found
            parts.append(items)
        return parts

    def labels(self, parts: list[list[Datum]], classnames: list[tuple[str, ...]]) -> None:
        """Every task and label must have a name."""
        self(bool(classnames) and all(classnames), "it names no classes")
        for name, part in zip(SPLITS, parts, strict=True):
            for d in part:
                if d.task >= len(classnames) or d.label >= len(classnames[d.task]):
                    self(
                        False,
                        f"{name}: {shorten(repr(d.impath))} has label {d.label} of task {d.task}, "
                        "which has no class name",
                    )


def _read_own(content: dict, check: _Checker) -> Split:
    def parse(entry: list) -> list[Datum] | None:
        path, label, task = entry
        usable = is_text(path) and _is_index(label) and _is_index(task)
        return [Datum(path, label, task=task)] if usable else None

    body = {key: value for key, value in content.items() if key not in ("format", "hash")}
    check(
        content.get("hash") == hash_json(body),
        "its hash is not that of its content: it was edited or damaged; delete it to draw it again",
    )
    parts = check.items(content, "own", parse)
    lists = content.get("classnames")
    check(isinstance(lists, list), "classnames must be a list of lists of names")
    classnames = [check.names(names, f"classnames[{t}]") for t, names in enumerate(lists)]
    check.labels(parts, classnames)
    tasknames = check.names(content.get("tasknames"), "tasknames")
    check(len(tasknames) in (0, len(classnames)), "tasknames must name every task or none")
    return Split(classnames, *parts, tasknames)


def _read_zhou(content: dict, check: _Checker) -> Split:
    names: dict[int, str] = {}

    def parse(entry: list) -> list[Datum] | None:
        path, label, name = entry
        if not (is_text(path) and _is_index(label) and is_text(name)):
            return None
        if names.setdefault(label, name) != name:
            check(False, f"label {label} is called both {names[label]!r} and {name!r}")
        return [Datum(path, label)]

    parts = check.items(content, "zhou", parse)
    check(
        bool(names) and max(names) == len(names) - 1,
        f"its labels must count from 0 without gaps, but are {shorten(repr(sorted(names)))}",
    )
    return Split([tuple(names[label] for label in range(len(names)))], *parts)


def _read_dk(content: dict, check: _Checker) -> Split:
    def parse(entry: list) -> list[Datum] | None:
        path, labels, tasks = entry
        if not (is_text(path) and isinstance(labels, list) and isinstance(tasks, list)):
            return None
        if len(labels) != len(tasks) or not all(map(_is_index, labels + tasks)):
            return None
        return [Datum(path, label, task=t) for label, t in zip(labels, tasks, strict=True)]

    parts = check.items(content, "dk", parse)
    meta = content.get("meta")
    check(isinstance(meta, dict), "it must hold an object 'meta'")
    lists = _per_task(meta.get("taskid2cname"), "taskid2cname", check)
    classnames = [check.names(names, f"taskid2cname[{t}]") for t, names in enumerate(lists)]
    check.labels(parts, classnames)
    tasknames: tuple[str, ...] = ()
    if meta.get("taskid2tname"):
        values = _per_task(meta["taskid2tname"], "taskid2tname", check)
        tasknames = check.names(values, "taskid2tname")
        check(len(tasknames) == len(classnames), "taskid2tname must name every task")
    return Split(classnames, *parts, tasknames)


def _per_task(value: Any, name: str, check: _Checker) -> list:
    """One value per task: a list, or an object whose keys are the task ids."""
    if isinstance(value, dict) and set(value) == {str(t) for t in range(len(value))}:
        value = [value[str(t)] for t in range(len(value))]
    check(isinstance(value, list), f"meta[{name!r}] must hold one entry per task")
    return value


_READERS = {"own": _read_own, "zhou": _read_zhou, "dk": _read_dk}


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text(value: Any) -> bool:
    """Whether a value is a string that a file, and a file name, can hold."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def stays_inside(path: str) -> bool:
    """Whether a relative path, with slashes or backslashes, stays below its folder."""
    if path[:1] in ("", "/", "\\") or path[1:2] == ":":
        return False
    return ".." not in path or ".." not in path.replace("\\", "/").split("/")
