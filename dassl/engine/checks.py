"""Refuses data that a trainer cannot be trained, selected or tested on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dassl.data.label_kinds import SingleLabel
from dassl.utils import UserError

from .calibration import check_calibration
from .registry import TRAINER_REGISTRY
from .unknown_task import check_unknown_task

if TYPE_CHECKING:
    from dassl.config import CfgNode
    from dassl.data import TaskSpace

    from .simple_trainer import SimpleTrainer

OTHER_METHOD = "choose another method, such as CoOp or MTCoOp"
FIXES = {"multi_label": "a column of one class per image", "ordinal": "KIND single_label"}


def refuses_some_tasks(trainer: SimpleTrainer) -> bool:
    """Whether there are classification tasks that the trainer's method cannot be trained on."""
    return trainer.suite is None or trainer.refused_labels is None or bool(trainer.refused_labels)


def check_suite(trainer: SimpleTrainer, cfg: CfgNode, space: TaskSpace) -> None:
    """Refuse tasks that a trainer does not know how to train on.

    Args:
        trainer: its model need not be built.

    Raises:
        UserError: several tasks for a trainer that does not know tasks, as labels are numbered
            per task; captions or questions, or a kind of label, that it does not take.
    """
    name, suite = cfg.TRAINER.NAME or type(trainer).__name__, cfg.DATASET.NAME
    tasks = len(space.tasks)
    if trainer.suite is None and tasks > 1:
        raise UserError(
            f"{name} does not know tasks, but {suite} has {tasks}: choose one with "
            "DATASET.SUBSAMPLE_TASKS task<i>, or set the class's attribute suite to "
            '"each" or "joint" once it handles them'
        )
    if space.content and not trainer.pairs:
        names = TRAINER_REGISTRY.registered_names()
        fitting = [other for other in names if TRAINER_REGISTRY.get(other).pairs]
        raise UserError(
            f"{name} is for classes, but {suite} contains {space.content}: choose one of "
            f"{', '.join(fitting)}"
        )
    if not space.content:
        _check_labels(trainer, name, space)


def _check_labels(trainer: SimpleTrainer, name: str, space: TaskSpace) -> None:
    """Refuse a task whose kind of label is one of the method's ``refused_labels``.

    A method with None there, as one that was written for Dassl, takes single labels only.
    """
    refused = trainer.refused_labels
    for task in space.tasks:
        kind = task.kind
        unknown = refused is None and type(kind) is not SingleLabel
        reason = "its loss knows one class per image only" if unknown else ""
        if reason := reason or (refused or {}).get(kind.name, ""):
            raise UserError(
                f"{name} cannot be trained on the task {task.name!r}, which is {kind.name}: "
                f"{reason}; {trainer.label_remedy or OTHER_METHOD}, leave the task out with "
                f"DATASET.SUBSAMPLE_TASKS, or make it {FIXES[kind.name]}"
            )


def check_training(trainer: SimpleTrainer) -> None:
    """Refuse to train without training images."""
    if trainer.learns_from_images() and trainer.train_loader_x is None:
        raise UserError(
            f"{trainer.cfg.DATASET.NAME} has no training images; leave tasks without them out "
            "(DATASET.SUBSAMPLE_TASKS), or evaluate only (--eval-only)"
        )


def check_validation(trainer: SimpleTrainer) -> None:
    """Refuse to train if something is to be selected on validation images and there are none."""
    if trainer.validation_selected():
        trainer.loader_of("val")


def check_test(trainer: SimpleTrainer) -> None:
    """Refuse an impossible TEST.SPLIT, and a selection on images that are also test images."""
    split = trainer.cfg.TEST.SPLIT
    if not trainer.cfg.TEST.NO_TEST:
        trainer.loader_of(split)
        check_unknown_task(trainer)
        check_calibration(trainer.cfg, trainer.dataset)
    selected = trainer.validation_selected()
    if selected and split == "test":
        trainer.dataset.keep_apart(" and ".join(selected))
    elif selected and not trainer.cfg.TEST.NO_TEST:
        chosen = " and ".join(selected)
        print(
            f"TEST.SPLIT {split}: {chosen} is chosen on the evaluated images; results are too high"
        )
