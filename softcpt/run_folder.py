"""A run directory before its model is built: is it a run that can be loaded?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dassl.utils import UserError, read_json
from results.read import make_run
from results.schema import FILE, RecordReader
from results.settings import CONFIG

PARAMETERS = "parameters.safetensors"  # in place of checkpoints, in an exported folder


def read_record(folder: Path, epoch: int | None) -> dict[str, Any]:
    """The content of a run's ``results.json``; torch is not imported for it.

    Args:
        epoch: a chosen epoch; without one the run must be complete, or exported from an epoch.

    Raises:
        UserError: no run, another schema, an incomplete run, or no ``config.yaml``.
    """
    if not os.path.isfile(folder / FILE):
        raise UserError(f"{folder} is no run: there is no {FILE} in it{_runs_below(folder)}")
    reader = RecordReader(folder / FILE, read_json(folder / FILE))
    if reader.status != "complete" and epoch is None and not (folder / PARAMETERS).is_file():
        raise UserError(
            f"the run in {folder} is not complete ({reader.status}): give its train.py command "
            "again to finish it, or choose one of its epochs with --load-epoch"
        )
    if not (folder / CONFIG).is_file():
        raise UserError(f"there is no {folder / CONFIG}: was the folder copied in part?")
    make_run(folder, reader.content)  # checks its values
    return reader.content


def _runs_below(folder: Path) -> str:
    """A hint at the runs in the folders of a folder."""
    if not folder.is_dir():
        return ""
    names = sorted(file.parent.name for file in folder.glob(f"*/{FILE}"))
    return f"; give one of the runs in it: {', '.join(names[:5])}" if names else ""
