"""``tasks.json``: the words of a run's tasks, from which its model is built without its data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.utils import UserError, naming_damaged, read_json, write_json

if TYPE_CHECKING:
    from dassl.data import TaskSpace

FILE = "tasks.json"


def write_tasks(space: TaskSpace, folder: Path) -> None:
    """Write name, class names, templates, metric, group and kind of label of each task.

    Captions and questions are not written: their texts belong to the data.
    """
    if not space.content:
        tasks = [{**asdict(task), "kind": task.kind.to_json()} for task in space.tasks]
        write_json({"tasks": tasks}, folder / FILE)


def read_tasks(folder: Path) -> TaskSpace | None:
    """The tasks of a run; None if the run did not write any.

    Raises:
        UserError: the file holds something else.
    """
    from dassl.data import Task, TaskSpace
    from dassl.data.label_kinds import kind_of_json

    tasks = read_words(folder)
    with naming_damaged(folder / FILE):
        for task in tasks:
            if "kind" in task:  # in runs of earlier versions all labels are single
                task["kind"] = kind_of_json(task["kind"])
        return TaskSpace(tuple(Task(**task) for task in tasks)) if tasks else None


def set_evaluated_biases(trainer: Any, training: str) -> None:
    """Set the biases of multi-label tasks for an evaluation, if OPTIM.LOGIT_BIAS is auto.

    They are those of the training. If that had no multi-label task, they are computed from the
    training images of the evaluated tasks, without their labels.

    Args:
        trainer: with the model to evaluate.
        training: the folder of the run that trained it; "" if there is none.
    """
    from dassl.data.label_kinds import AUTO
    from dassl.engine.label_bias import set_all_label_biases

    space = trainer.dataset.space
    if trainer.cfg.OPTIM.LOGIT_BIAS != AUTO:
        return
    if not training or not use_stored_biases(space, Path(training)):
        set_all_label_biases(trainer, use_labels=not training)


def use_stored_biases(space: TaskSpace, folder: Path) -> bool:
    """Give multi-label tasks the bias of the task with their name in a run.

    A task that the run did not have gets the mean over the multi-label tasks that it had, since
    its own labels are not to be used.

    Returns:
        False if the run had no multi-label task; nothing is changed then.
    """
    from dassl.data.label_kinds import MultiLabel

    with naming_damaged(folder / FILE):
        stored = {
            task["name"]: float(task["kind"]["bias"])
            for task in read_words(folder)
            if "bias" in task.get("kind", {})
        }
    if not stored:
        return False
    mean = sum(stored.values()) / len(stored)
    for task in space.tasks:
        if isinstance(task.kind, MultiLabel):
            task.kind.bias = stored.get(task.name, mean)
    return True


def read_words(folder: Path) -> list[dict]:
    """The content of ``tasks.json``, task by task; empty if the run did not write any.

    Raises:
        UserError: the file holds something else.
    """
    path = folder / FILE
    if not path.exists():
        return []
    content = read_json(path)
    tasks = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(tasks, list) or not all(map(_has_names, tasks)):
        raise UserError(f"{path} does not hold the tasks of a run")
    return tasks


def _has_names(task: Any) -> bool:
    """Whether something holds the name of a task and those of its classes."""
    if not isinstance(task, dict) or not isinstance(task.get("classnames"), list):
        return False
    names = [task.get("name"), *task["classnames"]]
    return all(isinstance(name, str) for name in names)
