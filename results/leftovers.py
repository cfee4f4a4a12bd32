"""Removes the files of a run that was refused before it computed anything."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from dassl.utils.scalars import CSV_FILE

from .schema import FILE
from .settings import CONFIG
from .tasks_file import FILE as TASKS

STATES = ("resume*.pt", "*/model.pth.tar*")  # states to resume, and learned parameters
RUN_FILES = (FILE, CONFIG, TASKS, CSV_FILE, "log.txt*", ".lock")
RUN_FOLDERS = ("tensorboard", "wandb")
TASK_FOLDER = "task[0-9]*"  # of each task, if a method trains them separately


def nothing_computed(folder: Path) -> bool:
    """Whether a run directory holds no state to resume and no learned parameters."""
    places = [folder, *folder.glob(TASK_FOLDER)]
    return not any(any(place.glob(name)) for place in places for name in STATES)


def remove_run_files(folder: Path, kept: Collection[str], new_folders: Sequence[Path]) -> None:
    """Remove what a run wrote into its folder, and the folders that were created for it.

    Nothing else is removed: the folder may hold other files, and the folders of other runs.

    Args:
        kept: names in the folder that were there before the run.
        new_folders: the run's folder and those above it that did not exist before, innermost
            first. Those that are not empty stay.
    """
    tasks = [path for path in folder.glob(TASK_FOLDER) if path.name not in kept]
    for path in tasks:
        _remove_files(path, ())
    _remove_files(folder, set(kept) - {".lock"})
    for path in (*tasks, *new_folders):
        with contextlib.suppress(OSError):  # not empty
            path.rmdir()


def _remove_files(folder: Path, kept: Collection[str]) -> None:
    for path in [path for name in RUN_FILES for path in folder.glob(name)]:
        if path.name not in kept:
            path.unlink(missing_ok=True)
    for name in RUN_FOLDERS:
        if name not in kept:
            shutil.rmtree(folder / name, ignore_errors=True)
