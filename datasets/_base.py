"""The one way a dataset is found, split, cut to few shots, and to base or new classes."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

from dassl.data import DatasetBase, Datum, Task, TaskSpace
from dassl.utils import UserError, unknown_name

from ._splits import Split, content_hash, load_json, read_folders, read_split, to_json
from ._store import find, read_line, store
from ._subsets import TaskImages, subsample_classes, subsample_tasks

SPLIT_SEED = 0  # there is one own split per dataset, whatever the seed of the run


def draw_shots(items: list[Datum], shots: int, rng: random.Random) -> list[Datum]:
    """At most ``shots`` images of every class, drawn without replacement.

    Classes come in the order of their first image, which makes the draw that of CoOp.
    """
    groups: dict[tuple[int, int], list[Datum]] = defaultdict(list)
    for item in items:
        groups[item.task, item.label].append(item)
    drawn = []
    for group in groups.values():
        drawn += rng.sample(group, shots) if len(group) >= shots else group
    return drawn


class ImageTasks(DatasetBase):
    """What single datasets and suites have in common.

    Attributes:
        images: the chosen tasks and their images, with paths relative to the image folders.
    """

    images: TaskImages

    def _finish(self, cfg, images: TaskImages, split: str) -> None:
        """Choose tasks and classes, and fill in what a dataset shows."""
        images = subsample_tasks(images, cfg.DATASET.SUBSAMPLE_TASKS)
        self.images = subsample_classes(images, cfg.DATASET.SUBSAMPLE_CLASSES)
        train, val, test = self.images.absolute()
        super().__init__(
            train_x=train,
            val=val,
            test=test,
            space=TaskSpace(tuple(self.images.tasks)),
            split=split,
            split_hash=content_hash(*self.images.parts),
        )


class FewShotDataset(ImageTasks):
    """A dataset that lies in a folder: a subclass says where, and what it is called.

    Attributes:
        dataset_dir: its folder under ``cfg.DATASET.ROOT``.
        image_dir: the folder in it that the paths of its splits start from.
        task_name: words for a task prompt; a ``task_name.txt`` in its folder wins.
        templates: sentences with ``{}``, the first being the usual one.
        metric: overall_acc or mean_acc.
        group: tasks of unlike groups are not averaged with each other.
        renames: class name by folder name, where the two differ.
        ignored: class folders that are left out.
        split_files: file name by split (zhou, dk, own), where it is not split_<split>_<Class>.json.
    """

    dataset_dir = ""
    image_dir = "images"
    task_name = ""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    metric = "overall_acc"
    group = ""
    renames: dict[str, str] = {}
    ignored: tuple[str, ...] = ()
    split_files: dict[str, str] = {}

    def __init__(self, cfg):
        self.root = self.find_root(cfg)
        self.image_root = self.root / self.image_dir
        split, kind = self.load_split(cfg.DATASET.SPLIT)
        tasks = self.make_tasks(split)
        if (shots := cfg.DATASET.NUM_SHOTS) >= 1:
            rng = random.Random(cfg.SEED)
            split.train = draw_shots(split.train, shots, rng)
            split.val = draw_shots(split.val, min(shots, 4), rng)
            self._record(split, f"{type(self).__name__}-{kind}-shot_{shots}-seed_{cfg.SEED}.json")
        roots = [self.image_root] * len(tasks)
        self._finish(cfg, TaskImages(tasks, roots, *split.parts), kind)

    def find_root(self, cfg) -> Path:
        """The folder of the dataset; its image folder exists."""
        name = type(self).__name__
        if not cfg.DATASET.ROOT:
            raise UserError(
                f"{name} needs a data folder: give the one that holds {self.dataset_dir}/ "
                "with --root"
            )
        root = Path(cfg.DATASET.ROOT).expanduser().absolute() / self.dataset_dir
        if not (root / self.image_dir).is_dir():
            raise UserError(
                f"{name}: there is no folder {root / self.image_dir}; give the folder that holds "
                f"{self.dataset_dir}/ with --root"
            )
        return root

    def read(self, rng: random.Random) -> Split:
        """A division of the raw files; called when none is stored yet."""
        return read_folders(self.image_root, rng, self.ignored)

    def load_split(self, choice: str) -> tuple[Split, str]:
        """The whole division, and which it is: zhou, dk or own.

        Args:
            choice: one of these, or auto for the first that is there.
        """
        known = ("auto", "zhou", "dk", "own")
        if choice not in known:
            raise unknown_name("DATASET.SPLIT", choice, known)
        for kind in ("zhou", "dk"):
            path = self.root / self._split_file(kind)
            if choice in ("auto", kind) and path.is_file():
                return read_split(path, kind), kind
            if choice == kind:
                raise UserError(
                    f"DATASET.SPLIT is {kind}, but there is no file {path}; put it there, or "
                    "take auto or own"
                )
        return self._own_split(), "own"

    def make_tasks(self, split: Split) -> list[Task]:
        """The tasks of the dataset; usually one."""
        names = list(split.tasknames) or [self.task_name] * len(split.classnames)
        if len(names) == 1 and (self.root / "task_name.txt").is_file():
            names = [read_line(self.root / "task_name.txt") or names[0]]
        return [
            Task(
                name,
                tuple(self.renames.get(c, c) for c in classnames),
                self.templates,
                self.metric,
                self.group,
            )
            for name, classnames in zip(names, split.classnames, strict=True)
        ]

    def _split_file(self, kind: str) -> str:
        return self.split_files.get(kind, f"split_{kind}_{type(self).__name__}.json")

    def _own_split(self) -> Split:
        name = self._split_file("own")
        path = find(self.root, name)
        if path is None:
            path = store(to_json(self.read(random.Random(SPLIT_SEED))), self.root, name)
        return read_split(path, "own")

    def _record(self, split: Split, name: str) -> None:
        """Write down a few-shot draw; refuse to go on if an earlier one was another."""
        lists = {"train": split.train, "val": split.val}
        record = {
            "hash": content_hash(*lists.values()),
            **{part: [d.impath for d in items] for part, items in lists.items()},
        }
        path = find(self.root, f"split_fewshot/{name}")
        if path is None:
            store(record, self.root, f"split_fewshot/{name}")
        elif load_json(path) != record:
            raise UserError(
                f"{path} holds another few-shot draw than this one, so the split has changed "
                "since; put the old split back, or delete the file to go on with the new one"
            )


class TaskGroup(ImageTasks):
    """Several datasets trained as one; task ids follow the order of ``members``.

    Each member makes its own few-shot draw from the same seed; the choice of base or new tasks
    and classes comes after.
    """

    members: tuple[type[ImageTasks], ...] = ()

    def __init__(self, cfg):
        whole = cfg.clone()
        whole.defrost()
        whole.DATASET.SUBSAMPLE_TASKS = whole.DATASET.SUBSAMPLE_CLASSES = "all"
        images, kinds = TaskImages(), []
        for dataset in (member(whole) for member in self.members):
            images.append(dataset.images)
            kinds.append(dataset.split)
        self._finish(cfg, images, "+".join(dict.fromkeys(kinds)))
