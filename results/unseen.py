"""Evaluations of tasks or classes that the training did not have: what must not be fitted there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dassl.utils import UserError, naming_damaged, read_json

from .schema import FILE
from .tasks_file import read_words

if TYPE_CHECKING:
    from dassl.config import CfgNode
    from dassl.data import TaskSpace


def stored_temperatures(
    cfg: CfgNode, space: TaskSpace, training: str, epoch: int | None = None
) -> dict[str, float]:
    """The temperatures of a training, for an evaluation of what it did not have; by task name.

    Args:
        space: the tasks that are evaluated.
        training: the folder of the run that trained the model (``--model-dir``).
        epoch: of the checkpoint to evaluate; None: the run's final model.

    Returns:
        Empty if they are to be fitted as usual, or TEST.CALIBRATION is not set.

    Raises:
        UserError: the evaluation would fit something on labelled images of tasks or classes that
            the training did not have: TEST.TASK_GIVEN is False, or TEST.CALIBRATION is set and the
            training has no temperature for them, or only that of its final model while another
            checkpoint is evaluated. Multi-label tasks have no temperature and need none.
    """
    if not training or (cfg.TEST.TASK_GIVEN and not cfg.TEST.CALIBRATION):
        return {}
    unseen = _unseen(space, Path(training))
    if unseen and not cfg.TEST.TASK_GIVEN:
        raise _fitted_on("TEST.TASK_GIVEN False", unseen, training, "Leave TEST.TASK_GIVEN True")
    if not unseen or not cfg.TEST.CALIBRATION:
        return {}
    single = [space.tasks[t].name for t in space.class_tasks]
    if single and epoch is not None:
        raise _fitted_on(
            f"TEST.CALIBRATION {cfg.TEST.CALIBRATION}",
            unseen,
            training,
            "The temperature that the training recorded is that of its final model: evaluate that "
            "one, without --load-epoch, or leave TEST.CALIBRATION empty here",
        )
    found, common = _temperatures(Path(training))
    values = {name: found.get(name, common) for name in single}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise _fitted_on(
            f"TEST.CALIBRATION {cfg.TEST.CALIBRATION}",
            unseen,
            training,
            f"The training has no temperature for {missing[0]!r}: train with TEST.CALIBRATION run, "
            "whose temperature is then used for all tasks, or leave it empty here",
        )
    return {name: value for name, value in values.items() if value is not None}


def _fitted_on(key: str, unseen: list[str], training: str, remedy: str) -> UserError:
    return UserError(
        f"{key} would be fitted on labelled images of {', '.join(unseen)}, which the training "
        f"in {training} did not have: the result would not be that of a model that has never "
        f"seen them. {remedy}"
    )


def _temperatures(training: Path) -> tuple[dict[str, float], float | None]:
    """The temperatures of a training by task name, and the one of all its tasks, if it is one."""
    file = training / FILE
    names = [task["name"] for task in read_words(training)]
    with naming_damaged(file):
        fitted = (read_json(file) if file.exists() else {}).get("calibration", {})
        found = {names[task["id"]]: float(task["temperature"]) for task in fitted.get("tasks", [])}
        one_for_all = found and (fitted["by"] == "run" or len(names) == 1)
        return found, next(iter(found.values())) if one_for_all else None


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
