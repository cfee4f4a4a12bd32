"""Refuses tasks that a trainer cannot be trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dassl.utils import UserError

from .label_check import refuse_labels
from .registry import TRAINER_REGISTRY

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


def check_suite(trainer: SimpleTrainer) -> None:
    """Refuse a suite that a trainer does not know how to train on.

    Raises:
        UserError: several tasks for a trainer that does not know tasks, as labels are numbered
            per task; captions or questions, or a kind of label, that it does not take.
    """
    cfg, space = trainer.cfg, trainer.dm.space
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
    refuse_labels(name, trainer.refused_labels, space, trainer.label_remedy)
