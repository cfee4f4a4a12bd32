"""Base classes of datasets: finding the folder, splitting, few shots, base and new classes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from dassl.config import CfgNode
from dassl.data import DatasetBase, Task, TaskSpace
from dassl.utils import UserError, shorten_list, unknown_name

from .annotations import read_line
from .compare import compare_splits
from .folders import (
    check_split_files,
    read_folders,
    refuse_same_files,
    shared_images,
)
from .layout import find_folder
from .shots import FewShotSample, all_labels, draw_shots
from .splits import Split, read_split, to_json
from .stored_files import find, store
from .subsets import TaskImages, subsample_classes, subsample_tasks
from .task_names import name_tasks

SPLIT_SEED = 0  # there is one own split per dataset, whatever the seed of the run


class ImageTasks(DatasetBase):
    """Base of single datasets and suites.

    Attributes:
        images: the chosen tasks and their images, with paths relative to the image folders.
    """

    images: TaskImages

    def _finish(self, cfg, images: TaskImages, split: str) -> None:
        """Select tasks and classes, and initialize the dataset with them."""
        images.tasks = _changed(images.tasks, cfg)
        images = subsample_tasks(images, cfg.DATASET.SUBSAMPLE_TASKS)
        self.images = subsample_classes(images, cfg.DATASET.SUBSAMPLE_CLASSES)
        train, val, test = self.images.absolute()
        super().__init__(
            train_x=train,
            val=val,
            test=test,
            space=TaskSpace(tuple(self.images.tasks)),
            split=split,
            image_roots=[str(root) for root in self.images.roots],
        )


class FewShotDataset(ImageTasks):
    """A dataset in a folder; a subclass names the folder, the task and its templates.

    Attributes:
        dataset_dir: its folder under ``cfg.DATASET.ROOT``.
        image_dir: the folder in it that the paths of its splits start from.
        task_name: words for a task prompt; a ``task_name.txt`` in its folder wins.
        templates: sentences with ``{}``, the first being the usual one.
        metric: overall_acc or mean_acc.
        group: tasks of unlike groups are not averaged with each other.
        renames: class name by folder name, for those that differ.
        ignored: class folders that are skipped.
        split_files: file name by split (zhou, dk, own), where it is not split_<split>_<Class>.json.
        annotations: files that ``read`` reads, in the dataset's folder or its image folder.
        official: whether ``read`` gives a published split, so that none is drawn or stored.
        val_is_test: whether validation and test images are the same on purpose.
        sizes: published numbers of images: train, val, test; or all; or none if unknown.
        num_tasks, num_columns: published numbers of tasks and of their classes together.
        draw_shots: the rule of few-shot draws.
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
    annotations: tuple[str, ...] = ()
    official = False
    val_is_test = False
    sizes: tuple[int, ...] = ()
    num_tasks = 1
    num_columns = 0
    draw_shots = staticmethod(draw_shots)
    has_columns = False  # whether DATASET.COLUMNS applies

    def __init__(self, cfg, store_split: bool = True):  # False: leave the data folder as it is
        if cfg.DATASET.COLUMNS and not self.has_columns:
            raise UserError(
                "DATASET.COLUMNS describes the columns of a TaskColumns table, but the dataset is "
                f"{type(self).__name__}; in a suite, put it into the entry of the table"
            )
        self.cfg, self._store_split = cfg, store_split
        self.root = self.find_root(cfg)
        self.image_root = self.root / self.image_dir
        split, kind = self.load_split(cfg.DATASET.SPLIT)
        self._check_parts(split, kind)
        tasks = self.make_tasks(split)
        if (shots := cfg.DATASET.NUM_SHOTS) >= 1 and split.train:
            name = f"{self.split_name}-{kind}"
            labelled = split.train
            where = self.root, self.image_root
            sample = FewShotSample(*where, name, shots, cfg.SEED, self.draw_shots)
            sample.subset(split, [task.kind for task in tasks])
            if cfg.DATASET.SHARE_SHOTS:
                split.train = all_labels(split.train, labelled)
        refuse_same_files(self.image_root, split.parts)
        roots = [self.image_root] * len(tasks)
        self._finish(cfg, TaskImages(tasks, roots, *split.parts), kind)

    @property
    def split_name(self) -> str:
        """The dataset's name in the files of its splits and few-shot draws."""
        return type(self).__name__

    def find_root(self, cfg) -> Path:
        """The folder of the dataset; its image folder exists."""
        return find_folder(cfg.DATASET.ROOT, self.dataset_dir, self.image_dir, type(self).__name__)

    def read(self, rng: random.Random) -> Split:
        """A split of the raw files; a stored split is compared with it."""
        return read_folders(self.image_root, rng, self.ignored)

    def annotation(self, name: str) -> Path:
        """The path of one of the ``annotations``; a UserError if it does not exist."""
        if path := self._find_annotation(name):
            return path
        raise UserError(
            f"{type(self).__name__}: there is no file {self.root / name}; docs/datasets says where "
            "it comes from"
        )

    def _find_annotation(self, name: str) -> Path | None:
        paths = (folder / name for folder in (self.root, self.image_root))
        return next((path for path in paths if path.is_file()), None)

    def load_split(self, choice: str) -> tuple[Split, str]:
        """The split of all images, and its kind: zhou, dk, own or official.

        Args:
            choice: zhou, dk, own, or auto for the first of them that exists. A dataset with an
                official split uses it for every choice without a file, as CoOp and SoftCPT do.
        """
        known = ("auto", "zhou", "dk", "own")
        if choice not in known:
            raise unknown_name("DATASET.SPLIT", choice, known)
        for kind in ("zhou", "dk"):
            path = self.root / self._split_file(kind)
            if choice in ("auto", kind) and path.is_file():
                split = read_split(path, kind)
                check_split_files(split, self.image_root, path)
                return split, kind
            if choice == kind and not self.official:
                raise UserError(
                    f"DATASET.SPLIT is {kind}, but there is no file {path}; put it there, or "
                    "use auto or own"
                )
        return (self._fresh_split(), "official") if self.official else (self._own_split(), "own")

    def has_split(self, kind: str) -> bool:
        """Whether a file with this split exists."""
        return find(self.root, self._split_file(kind)) is not None

    def _check_parts(self, split: Split, kind: str) -> None:
        """Refuse parts that share images; a published split file is used as it is, and reported."""
        for where, both in shared_images(split.parts, self.val_is_test):
            problem = f"{type(self).__name__}: {len(both)} images are in {where}, such as {both[0]}"
            if kind not in ("zhou", "dk"):
                raise UserError(f"{problem}; remove them from one of the lists in {self.root}")
            print(f"{problem}; the results are of the file as it is")

    def class_name(self, folder: str) -> str:
        """The class name for a folder name or a name in a split."""
        return self.renames.get(folder, folder)

    def make_tasks(self, split: Split) -> list[Task]:
        """The tasks of the dataset; usually one."""
        names = list(split.tasknames) or [self.task_name] * len(split.classnames)
        if len(names) == 1 and (self.root / "task_name.txt").is_file():
            names = [read_line(self.root / "task_name.txt") or names[0]]
        return [
            Task(name, self._clean(classnames), self.templates, self.metric, self.group)
            for name, classnames in zip(names, split.classnames, strict=True)
        ]

    def _clean(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """Class names; two that read the same in a prompt are refused."""
        seen: dict[str, str] = {}
        for folder in folders:
            spoken = " ".join(self.class_name(folder).replace("_", " ").split())
            if seen.setdefault(spoken, folder) != folder:
                raise UserError(
                    f"{type(self).__name__}: the classes {seen[spoken]!r} and {folder!r} of "
                    f"{self.root} are both called {spoken!r}; rename one of them"
                )
        return tuple(self.class_name(folder) for folder in folders)

    def _split_file(self, kind: str) -> str:
        return self.split_files.get(kind, f"split_{kind}_{self.split_name}.json")

    def _fresh_split(self) -> Split:
        split = self.read(random.Random(SPLIT_SEED))
        files = shorten_list(self.annotations)
        check_split_files(split, self.image_root, f"{self.root} ({files})" if files else self.root)
        return split

    def _own_split(self) -> Split:
        name = self._split_file("own")
        path = find(self.root, name)
        if path is None:
            fresh = self._fresh_split()
            refuse_same_files(self.image_root, fresh.parts)  # before they are stored
            if not self._store_split:
                return fresh
            return read_split(store(to_json(fresh), self.root, name), "own")
        split = read_split(path, "own")
        check_split_files(split, self.image_root, path)
        if all(map(self._find_annotation, self.annotations)):
            compare_splits(split, self.read(random.Random(SPLIT_SEED)), path, type(self).__name__)
        return split


class TaskGroup(ImageTasks):
    """A suite: several datasets side by side, with task ids in the order of ``members``.

    Each member makes its own few-shot draw from the same seed; base or new tasks and classes are
    selected afterwards.
    """

    members: tuple[type[ImageTasks], ...] = ()

    def __init__(self, cfg):
        images, kinds = TaskImages(), []
        for member, own in self.member_configs(full_config(cfg)):
            dataset = member(own)
            images.append(dataset.images)
            kinds += dataset.split.split("+")
        self._finish(cfg, images, "+".join(dict.fromkeys(kinds)))

    @classmethod
    def member_configs(cls, cfg) -> list[tuple[type[ImageTasks], CfgNode]]:
        """The class and the configuration of each member; ``cfg`` chooses no tasks or classes."""
        return [(member, cfg) for member in cls.members]


def full_config(cfg: CfgNode) -> CfgNode:
    """A copy of the configuration that selects and renames nothing."""
    cfg = cfg.clone()
    cfg.defrost()
    options = cfg.DATASET
    options.SUBSAMPLE_TASKS = options.SUBSAMPLE_CLASSES = "all"
    options.TASK_NAMES, options.TEMPLATE, options.METRIC = (), "", ""
    return cfg


def _changed(tasks: list[Task], cfg: CfgNode) -> list[Task]:
    """The tasks with the configuration's names, template and metric."""
    options, changes = cfg.DATASET, {}
    if options.TEMPLATE:
        changes["templates"] = (options.TEMPLATE,)
    if options.METRIC:
        changes["metric"] = options.METRIC
    named = name_tasks(tasks, options.TASK_NAMES, cfg.SEED)
    return [replace(task, **changes) for task in named]
