"""Evaluations of tasks or classes that the training did not have: what must not be fitted there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dassl.utils import UserError

from .task_words import read_words

if TYPE_CHECKING:
    from dassl.config import CfgNode
    from dassl.data import TaskSpace


def refuse_fitting_on_unseen(cfg: CfgNode, space: TaskSpace, training: str) -> None:
    """Refuse what an evaluation would fit on labelled images of tasks or classes held out before.

    Args:
        space: the tasks that are evaluated.
        training: the folder of the run that trained the model (``--model-dir``).

    Raises:
        UserError: TEST.CALIBRATION or TEST.TASK_GIVEN False, and a task or a class that the
            training did not have.
    """
    fits = {
        "TEST.CALIBRATION": (bool(cfg.TEST.CALIBRATION), "empty"),
        "TEST.TASK_GIVEN False": (not cfg.TEST.TASK_GIVEN, "True"),
    }
    chosen = [key for key, (fitted, _) in fits.items() if fitted]
    unseen = _unseen(space, Path(training)) if chosen and training else []
    if unseen:
        key = chosen[0]
        raise UserError(
            f"{key} would be fitted on labelled images of {', '.join(unseen)}, which the training "
            f"in {training} did not have: the result would not be that of a model that has never "
            f"seen them. Leave {key.split()[0]} {fits[key][1]} in this evaluation"
        )


def _unseen(space: TaskSpace, training: Path) -> list[str]:
    """Tasks with another name or other classes than those of a training, in words.

    A training of an earlier version, which has no ``tasks.json``, counts as one of the same tasks.
    """
    words = read_words(training)
    trained = {task["name"]: set(task["classnames"]) for task in words}
    found = []
    for task in space.tasks if words else ():
        if task.name not in trained:
            found.append(f"the task {task.name!r}")
        elif new := [name for name in task.classnames if name not in trained[task.name]]:
            found.append(f"{len(new)} classes of {task.name!r} ({new[0]!r}, ...)")
    return found
