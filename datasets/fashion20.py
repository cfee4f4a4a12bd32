"""Fashion-20: twenty attributes of clothes; class names come from the archive's table."""

from __future__ import annotations

import random
from dataclasses import replace

from dassl.data import DATASET_REGISTRY, Datum, Task
from dassl.utils import UserError

from ._core.annotations import read_rows
from ._core.base import FewShotDataset
from ._core.folders import images_by_class
from ._core.splits import Split

KINDS = (  # what a task's classes are kinds of, in the order of the tasks
    *["pants"] * 3,
    *["tops"] * 4,
    *["shoes"] * 7,
    *["hat", "socks", "socks", "skirt", "tops", "underwear"],
)


@DATASET_REGISTRY.register()
class Fashion20(FewShotDataset):
    """Fashion-20: twenty attributes of clothes, such as the length of pants.

    Class names are read from task_info.csv, whose columns are separated by tabs: an ignored one,
    the name of the task, another ignored one, the names of its classes, separated by commas.
    """

    dataset_dir = "fashion20"
    metric = "mean_acc"
    annotations = ("task_info.csv",)
    num_tasks = 20
    num_columns = 78

    def read(self, rng: random.Random) -> Split:
        """A split 50/20/30 of each task, from ``images/<task>/<class>/``, both numbered from 0."""
        path = self.annotation("task_info.csv")
        rows = list(read_rows(path, "number task text classes", sep="\t"))[1:]
        if len(rows) != len(KINDS):
            raise UserError(f"{path} has {len(rows)} tasks after its first line; expected 20")
        split = Split([], tasknames=tuple(row[1].replace("_", " ") for _, row in rows))
        for task, (where, row) in enumerate(rows):
            names = tuple(name.strip() for name in row[3].split(","))
            if not all(names):
                raise UserError(f"{where}: a class has no name in {row[3]!r}")
            classes = images_by_class(self.image_root / str(task), prefix=f"{task}/")
            if strange := sorted(set(classes) - set(map(str, range(len(names))))):
                raise UserError(f"{where} names {len(names)} classes; {strange[0]} is not one")
            split.classnames.append(names)
            items = [Datum(p, int(c), task=task) for c in classes for p in classes[c]]
            split.divide_class(items, rng, self.image_root / str(task))
        return split

    def make_tasks(self, split: Split) -> list[Task]:
        """The tasks, each with the template of its kind of clothes."""
        tasks = super().make_tasks(split)
        if len(tasks) != len(KINDS):
            raise UserError(f"the split of {self.root} has {len(tasks)} tasks; Fashion20 has 20")
        return [
            replace(
                task,
                name=task.name.replace("_", " "),
                templates=(f"a photo of {{}}, a type of {kind}.",),
            )
            for task, kind in zip(tasks, KINDS, strict=True)
        ]
