"""Datasets: lists of labelled images, and the layout of their tasks."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dassl.utils import UserError

from .identity import DataIdentity, identify
from .registry import DATASET_REGISTRY
from .tasks import Task, TaskSpace


def dataset_class(cfg) -> type[DatasetBase]:
    """The class that ``cfg.DATASET.NAME`` names; with ``DATASET.MEMBERS``, a Suite of any name."""
    name = cfg.DATASET.NAME
    members = getattr(cfg.DATASET, "MEMBERS", ())  # Dassl has no such key
    if not members or name == "Suite":
        return DATASET_REGISTRY.get(name)
    if name in DATASET_REGISTRY:
        raise UserError(
            f"DATASET.NAME {name} takes no DATASET.MEMBERS; give the suite of these members "
            "another name"
        )
    return DATASET_REGISTRY.get("Suite")


def build_dataset(cfg) -> DatasetBase:
    """The dataset ``cfg.DATASET.NAME``."""
    cls = dataset_class(cfg)
    was_enabled = gc.isenabled()
    gc.disable()  # every image is an object that stays; collections double the time of 120,000
    try:
        return cls(cfg)
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Datum:
    """One labelled image; ``label`` is its class within ``task``.

    Args:
        classname: name of the class; "" for images with captions, which have no classes.
        caption: the first caption of an image that has any.
    """

    impath: str = ""
    label: int = 0
    domain: int = 0
    classname: str = ""
    task: int = 0
    caption: str = ""


class DatasetBase:
    """Training, validation and test images, and the space of their tasks.

    Args:
        train_x, train_u: labelled and unlabelled training images.
        space: the tasks and their logit columns; by default one task, with the class names of the
            images.
        split: origin of the division into train, val and test, for the record.
        image_roots: the image folder of each task, which its identity leaves out of the paths;
            by default the common folder of its test images.
        test_split_size: number of items of the full test split, if ``test`` holds fewer of them.
    """

    dataset_dir = ""
    asks_questions = False  # whether DATASET.QUESTIONS applies

    def __init__(
        self,
        train_x: Sequence[Datum] | None = None,
        train_u: Sequence[Datum] | None = None,
        val: Sequence[Datum] | None = None,
        test: Sequence[Datum] | None = None,
        space: TaskSpace | None = None,
        split: str = "",
        image_roots: Sequence[str] = (),
        test_split_size: int | None = None,
    ):
        self.train_x, self.train_u, self.val, self.test = train_x, train_u, val, test
        self.space = space or _space_of([*(train_x or ()), *(val or ()), *(test or ())])
        self.split, self.image_roots = split, tuple(image_roots)
        self.test_split_size = test_split_size or len(test or ())

    @cached_property
    def identity(self) -> DataIdentity:
        """What a run on this dataset is computed on, as hashes."""
        return identify(self)

    @property
    def classnames(self) -> list[str]:
        """Class name of each of the C columns."""
        return self.space.classnames

    @property
    def num_classes(self) -> int:
        """C, the number of classes of all tasks."""
        return self.space.num_classes

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name by column."""
        return dict(enumerate(self.classnames))

    def with_space(self, space: TaskSpace) -> DatasetBase:
        """The same images with other task properties."""
        parts = (self.train_x, self.train_u, self.val, self.test)
        return DatasetBase(*parts, space, self.split, self.image_roots, self.test_split_size)

    def only_task(self, t: int) -> DatasetBase:
        """Task ``t`` alone, as task 0."""
        parts = [
            None if part is None else [replace(item, task=0) for item in part if item.task == t]
            for part in (self.train_x, self.train_u, self.val, self.test)
        ]
        roots = self.image_roots[t : t + 1]
        return DatasetBase(*parts, self.space.subset([t]), self.split, roots)

    def keep_apart(self, what: str) -> None:
        """Refuse to select ``what`` on validation images that are also test images of the task."""
        tested = {(item.task, item.impath) for item in self.test or ()}
        for item in self.val or ():
            if (item.task, item.impath) in tested:
                raise UserError(
                    f"{what} would be selected on validation images that are also test images, "
                    f"such as {item.impath}: set a value, or TEST.FINAL_MODEL last_step"
                )

    def relocate(self, old: str, new: str) -> None:
        """Replace ``old`` by ``new`` in the path of every image."""
        for name in ("train_x", "train_u", "val", "test"):
            if part := getattr(self, name):
                moved = [replace(item, impath=item.impath.replace(old, new)) for item in part]
                setattr(self, name, moved)
        self.image_roots = tuple(f"{root}/".replace(old, new)[:-1] for root in self.image_roots)


def _space_of(items: Iterable[Datum]) -> TaskSpace:
    """One task, from the labels and class names of its images."""
    names: dict[int, str] = {}
    for item in items:
        if item.task != 0:
            raise UserError(f"{item.impath} has task {item.task}: several tasks need a TaskSpace")
        if names.setdefault(item.label, item.classname) != item.classname:
            raise UserError(
                f"label {item.label} has two names: {names[item.label]!r} and, in {item.impath}, "
                f"{item.classname!r}"
            )
    if sorted(names) != list(range(len(names))):
        raise UserError(f"labels must be 0 to C - 1 without gaps; got {sorted(names)}")
    return TaskSpace((Task("", tuple(names[i] or str(i) for i in range(len(names)))),))
