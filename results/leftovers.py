"""Removes the files of a run that was refused before it computed anything."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

RUN_FILES = ("results.json", "config.yaml", "tasks.json", "log.txt*", ".lock")
RUN_FOLDERS = ("tensorboard", "wandb")


def nothing_computed(folder: Path) -> bool:
    """Whether a run directory holds no state to resume and no learned parameters."""
    return not any(any(folder.rglob(name)) for name in ("resume*.pt", "model.pth.tar*"))


def remove_run_files(folder: Path, kept: Collection[str], new_folders: Sequence[Path]) -> None:
    """Remove what a run wrote into its folder, and the folders that were created for it.

    Nothing else is removed: the folder may hold other files, and the folders of other runs.

    Args:
        kept: names in the folder that were there before the run.
        new_folders: the run's folder and those above it that did not exist before, innermost
            first. Those that are not empty stay.
    """
    for path in [path for name in RUN_FILES for path in folder.glob(name)]:
        if path.name not in kept or path.name == ".lock":
            path.unlink(missing_ok=True)
    for name in RUN_FOLDERS:
        if name not in kept:
            shutil.rmtree(folder / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        for path in new_folders:
            path.rmdir()
