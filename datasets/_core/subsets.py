"""Tasks with their images, and selecting some of the tasks or classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from dassl.data import Datum, Task
from dassl.data.task_subsets import choose_tasks
from dassl.utils import UserError, unknown_name


@dataclass
class TaskImages:
    """Tasks side by side and their three lists of images.

    Args:
        roots: the image folder of each task; the paths of its images are relative to it.
    """

    tasks: list[Task] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    train: list[Datum] = field(default_factory=list)
    val: list[Datum] = field(default_factory=list)
    test: list[Datum] = field(default_factory=list)

    @property
    def parts(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """train, val and test."""
        return self.train, self.val, self.test

    def append(self, other: TaskImages) -> None:
        """Append the tasks of ``other``."""
        first = len(self.tasks)
        self.tasks += other.tasks
        self.roots += other.roots
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine += theirs if not first else [_moved(d, d.task + first) for d in theirs]

    def absolute(self) -> list[list[Datum]]:
        """train, val and test with whole paths and class names."""
        roots = [f"{root}/" for root in self.roots]
        names = [task.kind.label_names(task.classnames) for task in self.tasks]
        return [
            [
                Datum(roots[d.task] + d.impath, d.label, d.domain, names[d.task][d.label], d.task)
                for d in part
            ]
            for part in self.parts
        ]


def _moved(item: Datum, task: int) -> Datum:
    """An image of another task; dataclasses.replace takes twice the time."""
    return Datum(item.impath, item.label, item.domain, item.classname, task, item.caption)


def subsample_tasks(images: TaskImages, choice: str) -> TaskImages:
    """Select tasks, and number them from 0.

    Args:
        choice: see :func:`dassl.data.task_subsets.choose_tasks`.
    """
    count = len(images.tasks)
    chosen = choose_tasks(choice, count)
    if len(chosen) == count:
        return images
    place = {old: new for new, old in enumerate(chosen)}
    parts = ([_moved(d, place[d.task]) for d in part if d.task in place] for part in images.parts)
    tasks, roots = ([values[i] for i in chosen] for values in (images.tasks, images.roots))
    return TaskImages(tasks, roots, *parts)


def subsample_classes(images: TaskImages, choice: str) -> TaskImages:
    """Select all or half of the classes of each task, and number them from 0.

    Args:
        choice: all, base (the first half, rounded up) or new (the rest).
    """
    if choice not in ("all", "base", "new"):
        raise unknown_name("DATASET.SUBSAMPLE_CLASSES", choice, ["all", "base", "new"])
    if choice == "all":
        return images
    labels, tasks = [], []  # labels: of each task, the new ones by the old ones
    for task in images.tasks:
        count = len(task.classnames)
        half = (count + 1) // 2
        span = range(half) if choice == "base" else range(half, count)
        if not span:
            raise UserError(
                f"DATASET.SUBSAMPLE_CLASSES is new, but task {task.name!r} has a single class, "
                "which is base"
            )
        kind, chosen = task.kind.restrict(span)
        labels.append(chosen)
        names = task.classnames[span.start : span.stop]
        tasks.append(replace(task, classnames=names, kind=kind))
    parts = (
        [replace(d, label=labels[d.task][d.label]) for d in part if d.label in labels[d.task]]
        for part in images.parts
    )
    return TaskImages(tasks, images.roots, *parts)
