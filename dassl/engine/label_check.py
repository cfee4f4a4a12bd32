"""Refuses tasks that a method cannot be trained on: several, of pairs, or with other labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dassl.data.label_kinds import SingleLabel
from dassl.data.tasks import TaskSpace
from dassl.utils import UserError

from .build import of_pairs

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer

FIXES = {"multi_label": "a column of one class per image", "ordinal": "KIND single_label"}


def refuse_labels(name: str, refused: dict[str, str] | None, space: TaskSpace) -> None:
    """Refuse a space with a task of a kind that a method does not take.

    Args:
        name: of the method.
        refused: the method's attribute ``refused_labels``: the reason by kind; None: it takes
            single labels only, as a trainer that was written for Dassl.

    Raises:
        UserError: it names the task, its kind and the reason.
    """
    for task in () if space.content else space.tasks:
        kind = task.kind
        unknown = refused is None and type(kind) is not SingleLabel
        reason = "its loss knows one class per image only" if unknown else ""
        if reason := reason or (refused or {}).get(kind.name, ""):
            raise UserError(
                f"{name} cannot be trained on the task {task.name!r}, which is {kind.name}: "
                f"{reason}; choose another method, such as CoOp or MTCoOp, leave the task out with "
                f"DATASET.SUBSAMPLE_TASKS, or make it {FIXES[kind.name]}"
            )


def refuse_suite(trainer: SimpleTrainer) -> None:
    """Refuse the tasks of a trainer's data that it was not written for.

    Raises:
        UserError: several tasks for a trainer that knows none, as labels are numbered per task;
            captions or questions for one of classes; or a kind of label that it does not take.
    """
    space, name, data = trainer.dm.space, type(trainer).__name__, trainer.cfg.DATASET.NAME
    if trainer.suite is None and len(space.tasks) > 1:
        raise UserError(
            f"{name} does not know tasks, but {data} has {len(space.tasks)}: choose one with "
            'DATASET.SUBSAMPLE_TASKS task<i>, or set the class\'s attribute suite to "each" or '
            '"joint" once it handles them'
        )
    if space.content and not trainer.pairs:
        raise UserError(
            f"{name} is for classes, but {data} contains {space.content}: choose one of "
            f"{', '.join(of_pairs())}"
        )
    refuse_labels(name, trainer.refused_labels, space)
