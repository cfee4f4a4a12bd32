"""The identity of data: hashes that tell whether two runs were computed on the same data."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dassl.utils import UserError
from dassl.utils.hashes import hash_file, hash_json

if TYPE_CHECKING:
    from .datasets import DatasetBase, Datum

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class TaskIdentity:
    """One task: its words in plain text, its items as counts and hashes.

    Args:
        classnames: in the order of the labels; empty if the items carry their own texts.
        counts: number of items by split.
        hashes: sha256 of the sorted (relative path, label) of each split.
        contents: sha256 of the sorted (relative path, sha256 of the file) of each split; empty
            unless :func:`identify` was asked to read the files.
        name_in_prompts: other words for the name, which follow from the configuration and may
            depend on the seed: they count for the draw, not for what seeds share.
    """

    name: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    counts: dict[str, int]
    hashes: dict[str, str]
    contents: dict[str, str]
    name_in_prompts: str = ""


@dataclass(frozen=True)
class DataIdentity:
    """What a run was computed on: tasks, class names, templates, and the items of each split.

    Neither the order of items nor the place of the image folder counts.

    Args:
        draw: sha256 of everything but the content of files: this very few-shot draw.
        shared: sha256 of what all seeds of an experiment share: tasks, class names, templates,
            and the test items with their labels.
        content: sha256 of the content of all files; "" unless it was asked for.
    """

    tasks: tuple[TaskIdentity, ...]
    draw: str
    shared: str
    content: str = ""

    def summary(self) -> dict[str, Any]:
        """A small JSON object for a run's record; see :func:`first_difference`."""
        summary = {"draw": self.draw, "shared": self.shared}
        if self.content:
            summary["content"] = self.content
        return {**summary, "tasks": [_summarize(task) for task in self.tasks]}


def identify(dataset: DatasetBase, content: bool = False) -> DataIdentity:
    """The identity of a dataset.

    Args:
        content: also read and hash every file, which takes as long as reading all images.

    Raises:
        UserError: a file cannot be read, with ``content``.
    """
    num_tasks = len(dataset.space.tasks)
    lists = [list(items or ()) for items in (dataset.train_x, dataset.val, dataset.test)]
    roots = _roots(dataset, lists)
    digests = _file_digests([item.impath for items in lists for item in items]) if content else {}
    rows = [{split: [] for split in SPLITS} for _ in range(num_tasks)]
    files = [{split: [] for split in SPLITS if content} for _ in range(num_tasks)]
    for split, items in zip(SPLITS, lists, strict=True):
        for item in items:
            path = _relative(item.impath, roots[item.task])
            rows[item.task][split].append((path, dataset.space.label_content(item)))
            if content:
                files[item.task][split].append((path, digests[item.impath]))
    tasks = tuple(
        TaskIdentity(
            **dataset.space.task_words(t),
            counts={split: len(rows[t][split]) for split in SPLITS},
            hashes={split: hash_json(sorted(rows[t][split])) for split in SPLITS},
            contents={split: hash_json(sorted(found)) for split, found in files[t].items()},
        )
        for t in range(num_tasks)
    )
    return DataIdentity(
        tasks,
        draw=hash_json([_words(task, SPLITS) + _other_name(task) for task in tasks]),
        shared=hash_json([_words(task, ("test",)) for task in tasks]),
        content=hash_json([task.contents for task in tasks]) if content else "",
    )


def relative_paths(dataset: DatasetBase, items: Sequence[Datum]) -> list[str]:
    """The path of each item, relative to the image folder of its task."""
    roots = image_folders(dataset)
    return [_relative(item.impath, roots[item.task]) for item in items]


def image_folders(dataset: DatasetBase) -> list[str]:
    """The image folder of each task, with a slash at the end."""
    lists = [list(part or ()) for part in (dataset.train_x, dataset.val, dataset.test)]
    return _roots(dataset, lists)


def _roots(dataset: DatasetBase, lists: list[list[Datum]]) -> list[str]:
    """The image folder of each task, with a slash at the end."""
    folders = dataset.image_roots or _common_folders(lists, len(dataset.space.tasks))
    return [folder.replace("\\", "/") + "/" for folder in folders]


def first_difference(old: dict, new: dict) -> str:
    """The first thing in which two summaries differ, as a phrase; "" if they are of the same data.

    The content of files is compared only if both summaries have it.
    """
    one, two = old.get("tasks", []), new.get("tasks", [])
    if len(one) != len(two):
        return f"{len(one)} tasks before, {len(two)} now"
    for before, now in zip(one, two, strict=True):
        for found in _task_differences(before, now):
            return found
    return ""


def _task_differences(before: dict, now: dict) -> Iterator[str]:
    """Each difference of one task, the names first."""
    where = f"task {now['name']!r}"
    if before["name"] != now["name"]:
        yield f"task {before['name']!r} before, {now['name']!r} now"
    old, new = (task.get("name_in_prompts", task["name"]) for task in (before, now))
    if old != new:
        yield f"{where}: called {old!r} in prompts before, {new!r} now"
    if before["classes"] != now["classes"]:
        yield f"{where}: {before['classes']} classes before, {now['classes']} now"
    if before["classnames"] != now["classnames"]:
        yield f"{where}: other class names, or in another order"
    if before["templates"] != now["templates"]:
        yield f"{where}: template {before['templates']} before, {now['templates']} now"
    for split in SPLITS:
        a, b = before[split], now[split]
        if a["items"] != b["items"]:
            yield f"{where}: {a['items']:,} {split} items before, {b['items']:,} now"
        if a["hash"] != b["hash"]:
            yield f"{where}: other {split} items, or other labels of them"
        if a.get("content", "") != b.get("content", "") and a.get("content") and b.get("content"):
            yield f"{where}: the files of the {split} items have another content"


def _summarize(task: TaskIdentity) -> dict[str, Any]:
    splits = {}
    for split in SPLITS:
        splits[split] = {"items": task.counts[split], "hash": task.hashes[split]}
        if task.contents:
            splits[split]["content"] = task.contents[split]
    other_name = {"name_in_prompts": task.name_in_prompts} if task.name_in_prompts else {}
    return {
        "name": task.name,
        **other_name,
        "classes": len(task.classnames),
        "classnames": hash_json(task.classnames),
        "templates": list(task.templates),
        **splits,
    }


def _words(task: TaskIdentity, splits: Sequence[str]) -> list:
    """What a hash covers of a task."""
    hashes = [task.hashes[split] for split in splits]
    return [task.name, task.classnames, task.templates, hashes]


def _other_name(task: TaskIdentity) -> list[str]:
    """The task's name in prompts, where it is another; hashes of earlier runs stay."""
    return [task.name_in_prompts] if task.name_in_prompts else []


def _common_folders(lists: list[list[Datum]], num_tasks: int) -> list[str]:
    """A root per task for a dataset that names none: the common folder of its test items.

    Test items are the same for all seeds. A task without any uses all of its items.
    """
    roots = []
    for t in range(num_tasks):
        test = {os.path.dirname(d.impath) for d in lists[2] if d.task == t}
        folders = test or {os.path.dirname(d.impath) for part in lists for d in part if d.task == t}
        try:
            roots.append(os.path.commonpath(folders) or "." if folders else ".")
        except ValueError:  # absolute and relative paths, or several drives
            roots.append(".")
    return roots


def _relative(path: str, root: str) -> str:
    """A path below ``root/``, with forward slashes and without ``.`` and double slashes."""
    path = path.replace("\\", "/")
    if not path.startswith(root):
        path = os.path.relpath(path, root)
    else:
        path = path[len(root) :].lstrip("/")
    return posixpath.normpath(path) if "//" in path or "./" in path else path


def _file_digests(paths: list[str]) -> dict[str, str]:
    """sha256 of each file."""
    paths = list(dict.fromkeys(paths))
    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(_file_digest, paths), strict=True))


def _file_digest(path: str) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise UserError(f"cannot read the image {path} ({error.strerror})") from None
