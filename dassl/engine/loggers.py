"""Where the curves of a training are written (``LOGGERS``): TensorBoard, a CSV, wandb.

Each run has its own files. A resumed run continues the CSV and the wandb run of its folder and
writes no point twice; TensorBoard gets a new file, whose points count.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import secrets
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.config import CfgNode
from dassl.utils import UserError
from dassl.utils.files import atomic_path
from dassl.utils.scalars import CSV_FILE, HEAD, read_points

LOGGED = "logged.csv"  # points that the wandb run has


class Logger(ABC):
    """A place for points of named curves."""

    @abstractmethod
    def add(self, name: str, value: float, step: int) -> None:
        """Write a point.

        Args:
            name: such as ``train/loss``.
            step: number of the batch, or of the epoch for evaluations.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is missing, and close the files."""


class TensorBoardLogger(Logger):
    """Event files in the folder ``tensorboard``.

    Points are written at once. torch's ``SummaryWriter`` has a thread for that, which takes longer
    to take turns with this one than the writing takes.
    """

    def __init__(self, folder: Path):
        from tensorboard.compat.proto.event_pb2 import Event  # slow to import
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, place, now = Event, folder / "tensorboard", time.time_ns()
        place.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{os.getpid()}.{now}"
        self._writer = RecordWriter((place / name).open("xb"))
        self._write(file_version="brain.Event:2")

    def _write(self, **values: Any) -> None:
        event = self._event(wall_time=time.time(), **values)
        self._writer.write(event.SerializeToString())
        self._writer.flush()  # unbuffered, a full disk would cut an event short without an error

    def add(self, name: str, value: float, step: int) -> None:
        self._write(step=step, summary={"value": [{"tag": name, "simple_value": value}]})

    def close(self) -> None:
        self._writer.close()


class CsvLogger(Logger):
    """The file ``scalars.csv``: a line with name, step and value for each point."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        complete, points = read_points(path)
        self._known = {(name, step) for name, step, _ in points}
        self._file = path.open("r+" if complete else "w", encoding="utf-8", newline="")
        self._file.seek(complete)
        self._file.truncate()  # a line that was being written when the run was killed
        self._writer = csv.writer(self._file)
        if not complete:
            self._writer.writerow(HEAD)

    def is_known(self, name: str, step: int) -> bool:
        """Whether the file holds this point already."""
        return (name, step) in self._known

    def add(self, name: str, value: float, step: int) -> None:
        if not self.is_known(name, step):
            self._known.add((name, step))
            self._writer.writerow((name, step, repr(float(value))))
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class WandbLogger(Logger):
    """A run of Weights & Biases; ``WANDB_MODE`` and ``WANDB_PROJECT`` are read as usual.

    A run directory is always the same wandb run, wherever it is moved: its id is in
    ``wandb/run_id``. Which points it has is stored in ``wandb/logged.csv``, so that a resumed run
    adds only new ones.
    """

    def __init__(self, folder: Path, cfg: CfgNode):
        import wandb

        place = folder.resolve()
        try:
            self._run: Any = wandb.init(
                dir=str(place),
                project=os.environ.get("WANDB_PROJECT", "softcpt"),
                id=_wandb_id(place / "wandb" / "run_id"),
                name="/".join(place.parts[-3:]),
                config=cfg.to_dict(),
                resume="allow",
                reinit="create_new",  # several runs of a process may be open at a time
                settings=wandb.Settings(console="off", silent=True),
            )
        except Exception as error:  # wandb has several, for a missing login and for the network
            raise UserError(
                f"LOGGERS wandb: wandb cannot start a run ({error}); log in with wandb login, set "
                "WANDB_MODE=offline, or leave wandb out of LOGGERS"
            ) from None
        self._logged = CsvLogger(place / "wandb" / LOGGED)
        for kind, axis in (("train", "batch"), ("val", "epoch"), ("test", "epoch")):
            self._run.define_metric(f"{kind}/*", step_metric=axis)

    def add(self, name: str, value: float, step: int) -> None:
        if not self._logged.is_known(name, step):
            axis = "batch" if name.startswith("train/") else "epoch"
            self._run.log({name: float(value), axis: step})
            self._logged.add(name, value, step)

    def close(self) -> None:
        self._run.finish()
        self._logged.close()


def _wandb_id(path: Path) -> str:
    """The id in a file; if there is none, a random one is drawn and written there.

    A new run has no points yet, so the list of those that another one had is removed.
    """
    if path.is_file() and (known := path.read_text(encoding="utf-8").strip()):
        return known
    (path.parent / LOGGED).unlink(missing_ok=True)
    new = secrets.token_hex(8)
    with atomic_path(path) as temporary:
        temporary.write_text(new + "\n", encoding="utf-8")
    return new


def check_loggers(names: Sequence[str]) -> None:
    """Refuse LOGGERS that cannot be used.

    Raises:
        UserError: wandb is not installed, or a name occurs twice.
    """
    if len(set(names)) < len(names):
        raise UserError(f"LOGGERS holds a name twice: {', '.join(names)}")
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "LOGGERS has wandb, which is not installed: pip install wandb, or take csv or "
            "tensorboard"
        )


def open_loggers(cfg: CfgNode, folder: Path) -> list[Logger]:
    """The loggers of ``cfg.LOGGERS`` for a run directory, created if it does not exist."""
    check_loggers(cfg.LOGGERS)
    folder.mkdir(parents=True, exist_ok=True)
    opened: list[Logger] = []
    for name in cfg.LOGGERS:
        if name == "tensorboard":
            opened.append(TensorBoardLogger(folder))
        elif name == "csv":
            opened.append(CsvLogger(folder / CSV_FILE))
        else:
            opened.append(WandbLogger(folder, cfg))
    return opened
