"""``tasks.json``: the words of a run's tasks, from which its model is built without its data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dassl.utils import UserError, read_json, write_json

if TYPE_CHECKING:
    from dassl.data import TaskSpace

FILE = "tasks.json"


def write_tasks(space: TaskSpace, folder: Path) -> None:
    """Write name, class names, templates, metric and group of each task.

    Captions and questions are not written: their texts belong to the data.
    """
    if not space.content:
        write_json({"tasks": [asdict(task) for task in space.tasks]}, folder / FILE)


def read_tasks(folder: Path) -> TaskSpace | None:
    """The tasks of a run; None if the run did not write any.

    Raises:
        UserError: the file holds something else.
    """
    from dassl.data import Task, TaskSpace

    path = folder / FILE
    if not path.exists():
        return None
    try:
        return TaskSpace(tuple(Task(**task) for task in read_json(path)["tasks"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not hold the tasks of a run: {error}") from None
