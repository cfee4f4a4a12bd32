"""Refuses tasks whose kind of label a method cannot be trained on."""

from __future__ import annotations

from dassl.data.label_kinds import SingleLabel
from dassl.data.tasks import TaskSpace
from dassl.utils import UserError

OTHER_METHOD = "choose another method, such as CoOp or MTCoOp"
FIXES = {"multi_label": "a column of one class per image", "ordinal": "KIND single_label"}


def refuse_labels(
    name: str, refused: dict[str, str] | None, space: TaskSpace, remedy: str = ""
) -> None:
    """Refuse a space with a task of a kind that a method does not take.

    Args:
        name: of the method.
        refused: the method's attribute ``refused_labels``: the reason by kind; None: it takes
            single labels only, as a trainer that was written for Dassl.
        remedy: how to keep the task where the reason is a key; "": by another method.

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
                f"{reason}; {remedy or OTHER_METHOD}, leave the task out with "
                f"DATASET.SUBSAMPLE_TASKS, or make it {FIXES[kind.name]}"
            )
