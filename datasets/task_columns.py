"""TaskColumns: a user's own images in a table with a column of labels per task."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from dassl.data import DATASET_REGISTRY, Datum, Task
from dassl.utils import UserError, unknown_name

from ._core.folders import PATH_COLUMNS, shorten_list
from ._core.image_tables import ImageTable, checked_row, fields_of, names_of_columns, read_table
from ._core.label_columns import LabelColumn, label_columns
from ._core.splits import SHARES, Split

TRIES = 20  # divisions of a table, until every class has images for train and test


@DATASET_REGISTRY.register()
class TaskColumns(ImageTable):
    """Your own images, several tasks: a CSV with a path and a column of labels per task.

    The table is ``DATASET.MANIFEST`` in the data folder. Its first line names the columns: path
    (or image, file, filename ...), if wanted split (train, val or test), and the tasks, in words.
    An empty field: the image has no label in that task, and counts in the other tasks only.
    Without the column split, images are divided 50/20/30 with all their labels, so that none is
    trained on in one task and tested in another. ``DATASET.COLUMNS`` says which columns are
    multi-label or ordinal.
    """

    has_columns = True

    @cached_property
    def _labels(self) -> dict[str, LabelColumn]:
        """The columns that ``DATASET.COLUMNS`` describes, by name."""
        return label_columns(self.cfg)

    def _column(self, task: str) -> LabelColumn:
        """What is known of the column of a task."""
        return self._labels.get(task) or LabelColumn(task)

    def rows_of(self, path: Path) -> list[dict[str, str]]:
        lines = read_table(path)
        if not lines:
            return []
        fields, where = lines[0]
        head = self._columns(fields, where)
        tasks = [name for name in head if name not in ("path", "split")]
        for name in self._labels:
            if name not in tasks:
                raise unknown_name(f"column of DATASET.COLUMNS in {path}", name, tasks)
        rows, unlabelled, images = [], [], {}
        for fields, where in lines[1:]:
            line = fields_of(head, fields, where)
            first = images.setdefault(line["path"], where)
            if first is not where:
                raise UserError(f"{where}: {line['path']!r} is already listed in {first}")
            labelled = [task for task in tasks if line[task]]
            if not labelled:
                unlabelled.append(line["path"])
            named = ("path", "class", *(["split"] if "split" in head else []))
            for task in labelled:
                self._column(task).check_field(line[task], where)
                row = {"path": line["path"], "split": line.get("split", "")}
                row |= {"task": task, "class": line[task]}
                rows.append(checked_row(row, named, where))
        if unlabelled:
            print(f"{path}: {len(unlabelled)} images have no label: {shorten_list(unlabelled)}")
        self._check_tasks(rows, tasks, path)
        return sorted(rows, key=lambda row: tasks.index(row["task"]))  # tasks as in the first line

    @staticmethod
    def _columns(fields: list[str], where: str) -> list[str]:
        """The names of the columns; that of paths is called path, that of the split split."""
        head = names_of_columns(fields, where)
        lower = [name.lower() for name in head]
        path = next((lower.index(name) for name in PATH_COLUMNS if name in lower), None)
        if path is None:
            raise UserError(
                f"{where}: no column of paths: the first line must name one of "
                f"{', '.join(PATH_COLUMNS)}, and the tasks, but is {','.join(fields)[:80]!r}"
            )
        named = [" ".join(name.replace("_", " ").split()) for name in head]
        named = ["split" if name.lower() == "split" else name for name in named]
        named[path] = "path"
        if twice := [name for name, n in Counter(named).items() if n > 1 or not name]:
            raise UserError(f"{where}: two columns, or one without a name, are called {twice[0]!r}")
        if not set(named) - {"path", "split"}:
            raise UserError(f"{where}: there is no column of labels beside {', '.join(head)}")
        return named

    def divide(
        self, split: Split, groups: dict[tuple[int, int], list[Datum]], rng: random.Random
    ) -> None:
        """Divide the images, with all their labels, so that every class is divided 50/20/30.

        If a class gets no image for train or test, as few images with many labels can make it, all
        are divided again in another order, up to TRIES times.
        """
        by_class: dict[tuple[int, str], list[Datum]] = defaultdict(list)
        for (task, label), items in groups.items():
            column = self._column(split.tasknames[task])
            for name in column.classes_in(split.classnames[task][label]) or ("",):
                by_class[task, name] += items
        for _ in range(TRIES):
            part_of, lacking = _place(by_class, rng)
            if lacking is None:
                break
        if lacking is not None:
            task, name = lacking
            raise UserError(
                f"class {name!r} of the task {split.tasknames[task]!r} in "
                f"{self.table} has {len(by_class[lacking])} images, too few for train "
                "and test; label more, or add a column split"
            )
        for _, items in sorted(groups.items()):
            for item in items:
                split.parts[part_of[item.impath]].append(item)

    def _check_tasks(self, rows: list[dict[str, str]], tasks: list[str], path: Path) -> None:
        """Refuse a column whose fields are all the same, or do not fit its kind."""
        fields: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            fields[row["task"]].add(row["class"])
        for task in tasks:
            if len(fields[task]) < 2:
                found = next(iter(fields[task]), "")
                what = f"only the label {found!r}" if found else "no label"
                raise UserError(f"{path}: the column {task!r} has {what}; a task needs two or more")
            self._column(task).check_fields(fields[task], path)

    def load_split(self, choice: str) -> tuple[Split, str]:
        split, kind = super().load_split(choice)
        for t, task in enumerate(split.tasknames):
            self._column(task).put_in_order(split, t)
        return split, kind

    def make_tasks(self, split: Split) -> list[Task]:
        """The tasks, each with its kind of label.

        Raises:
            UserError: no training image has some class of a multi-label task.
        """
        pairs = [
            self._column(task).make_kind(fields, self.cfg.OPTIM)
            for task, fields in zip(split.tasknames, split.classnames, strict=True)
        ]
        names = [classnames for _, classnames in pairs]
        tasks = super().make_tasks(replace(split, classnames=names))
        tasks = [replace(task, kind=kind) for task, (kind, _) in zip(tasks, pairs, strict=True)]
        for t in (t for t, task in enumerate(tasks) if task.kind.is_set and split.train):
            labels = {item.label for item in split.train if item.task == t}
            present = {c for label in labels for c in tasks[t].kind.classes_of(label)}
            if never := [n for c, n in enumerate(tasks[t].classnames) if c not in present]:
                raise UserError(
                    f"{self.table}: no training image of the task {tasks[t].name!r} "
                    f"has {shorten_list(never)}; label some, or leave the class out"
                )
        return tasks


def _place(
    by_class: dict[tuple[int, str], list[Datum]], rng: random.Random
) -> tuple[dict[str, int], tuple[int, str] | None]:
    """The part of each image, and the first class without an image for train or test, if any.

    Classes are divided from the rarest to the most frequent; images that an earlier class has
    placed stay where they are, the others go where the class lacks most.
    """
    part_of: dict[str, int] = {}
    lacking = None
    for group in sorted(by_class, key=lambda group: (len(by_class[group]), group)):
        items = by_class[group]
        counts = Counter(part_of[d.impath] for d in items if d.impath in part_of)
        free = [d.impath for d in items if d.impath not in part_of]
        rng.shuffle(free)
        for image in free:
            missing = [SHARES[i] * len(items) - counts[i] for i in range(len(SHARES))]
            part_of[image] = missing.index(max(missing))
            counts[part_of[image]] += 1
        if group[1] and (not counts[0] or not counts[2]):
            lacking = lacking or group
    return part_of, lacking
