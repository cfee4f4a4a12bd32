"""Reading runs: folders with a ``results.json`` of schema 1, or else with logs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dassl.utils import UserError, flat, read_json

from .logs import Log, log_files, read_logs
from .schema import Reader, is_percentage, read_config

FILE = "results.json"
STATUSES = ("running", "interrupted", "failed", "complete")
ONLY_LOG = "no results.json, and a log without an end"
NO_FILE = "no results.json"
ZERO_SHOT = ("zero-shot", "zeroshotclip")  # methods whose name starts so use no training images
OVERALL = "overall_metric"
OVERALL_NAMES = (OVERALL, "accuracy")  # SoftCPT's and CoOp's word for it in logs
# Keys of a protocol that are columns of a table or may differ between the seeds of a row.
NOT_VARIANT = ("method", "suite", "shots", "seed", "split_hash")
# Keys of a config.yaml that the protocol holds under its own names, or that only shape the log.
NOT_RECIPE = (
    "SEED",
    "PROTOCOL",
    "DATASET.NAME",
    "DATASET.NUM_SHOTS",
    "DATASET.SUBSAMPLE_CLASSES",
    "DATASET.SUBSAMPLE_TASKS",
    "DATASET.SPLIT",
    "MODEL.BACKBONE.NAME",
    "TEST.FINAL_MODEL",
    "TEST.METRIC",
    "TEST.PER_CLASS_RESULT",
    "TEST.PER_TASK_RESULT",
    "TEST.COMPUTE_CMAT",
)


@dataclass(frozen=True)
class Run:
    """One run as a table needs it; values are percentages, None where there is no test image.

    An unfinished run keeps what its record knew: the other fields may be empty.
    """

    folder: Path
    status: str  # one of STATUSES, NO_FILE or ONLY_LOG
    method: str = ""
    suite: str = ""
    shots: int = 0  # images per class; 0: none is used, -1: all
    seed: int | None = None
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name, as in the record
    overall: float | None = None  # mean over tasks; None if they belong to unlike groups
    groups: dict[str, float | None] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)  # more values that a log gives
    variant: dict[str, str] = field(default_factory=dict)  # the rest of protocol and config, flat
    parameters: int | None = None  # learned
    seconds: float | None = None  # the whole run; None too if the record covers only a part of it
    minutes: float | None = None  # of training and evaluation; None too, as above
    error: str = ""  # of a failed run

    @property
    def complete(self) -> bool:
        """Whether the run may be averaged."""
        return self.status == "complete"

    @property
    def grouped(self) -> bool:
        """Whether the tasks belong to several groups, so that there is no overall value."""
        return self.overall is None and len(self.groups) > 1

    def value_names(self) -> list[str]:
        """Names of all values: overall_metric, groups, tasks, what else a log gives."""
        return [*([] if self.grouped else [OVERALL]), *self.groups, *self.tasks, *self.others]

    def get(self, key: str) -> float | None:
        """The value named overall_metric, or as a group or task; None if there is none."""
        if key in self.groups:
            return self.groups[key]
        if key in self.tasks:
            return self.tasks[key]["value"]
        return self.overall if key == OVERALL else self.others.get(key)


def find_runs(root: str | os.PathLike, test_log: bool = False) -> list[Run]:
    """Every run at or below a folder, sorted by path; hidden folders are left out.

    Args:
        test_log: see :func:`read_run_or_log`.

    Raises:
        UserError: there is no such folder, or a record is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    runs = []
    for name, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if FILE in files or log_files(Path(name)):
            runs.append(read_run_or_log(name, test_log))
    return runs


def read_run(folder: str | os.PathLike) -> Run:
    """The run in a folder; without a record it is one whose status says so."""
    folder = Path(folder)
    if (folder / FILE).exists():
        return make_run(folder, read_json(folder / FILE))
    return Run(folder, ONLY_LOG if log_files(folder) else NO_FILE)


def read_run_or_log(folder: str | os.PathLike, test_log: bool = False) -> Run:
    """As :func:`read_run`, but where there is no record, a log that came to its end is a run.

    Args:
        test_log: such logs are those of evaluations.
    """
    run = read_run(folder)
    log = read_logs(run.folder, test_log) if run.status == ONLY_LOG else None
    return run if log is None else _logged(run.folder, log)


def _logged(folder: Path, log: Log) -> Run:
    """A run from a log; what the log does not say is taken from the names of the folders."""
    said, values = log.settings, dict(log.values)
    seed = said.get("SEED", "") if said.get("SEED", "-1") != "-1" else folder.name
    number = re.search(r"\d+$", seed)
    overall = next((values[name] for name in OVERALL_NAMES if name in values), None)
    values.pop(OVERALL, None)
    method = said.get("TRAINER.NAME") or folder.parent.name
    shots = said.get("DATASET.NUM_SHOTS", "")
    tasks = [(i, name, value) for i, (name, value) in sorted(log.tasks.items())]
    about = {"backbone": "MODEL.BACKBONE.NAME", "classes": "DATASET.SUBSAMPLE_CLASSES"}
    variant = {key: said[place] for key, place in about.items() if place in said}
    return Run(
        folder=folder,
        status="complete",
        method=method,
        suite=said.get("DATASET.NAME", ""),
        shots=_shots(method, int(shots) if re.fullmatch(r"-?\d+", shots) else 0),
        seed=int(number[0]) if number else None,
        tasks=_labelled(tasks),
        overall=overall,
        groups=dict(log.groups),
        others=values,
        variant=variant | log.options(),
    )


def make_run(folder: Path, content: Any) -> Run:
    """A run from the content of its record.

    Raises:
        UserError: a key is missing or holds something else; the message names file and key.
    """
    reader = Reader(folder / FILE, content)
    status = reader.get("status", str)
    if status not in STATUSES:
        raise reader.error("status", f"is {status!r}, not one of {', '.join(STATUSES)}")
    if status != "complete":
        return _unfinished(folder, status, content)
    method = reader.get("protocol.method", str)
    shots = reader.get("protocol.shots", int)
    for key, value in reader.get("suite.groups", dict).items():
        if not is_percentage(value):
            raise reader.error(f"suite.groups.{key}", f"must be a percentage, but is {value!r}")
    return Run(
        folder=folder,
        status=status,
        method=method,
        suite=reader.get("protocol.suite", str),
        shots=_shots(method, shots),
        seed=reader.get("protocol.seed", int),
        tasks=_tasks(reader),
        overall=reader.percentage("suite.value"),
        groups=reader.get("suite.groups", dict),
        variant=_variant(folder, content),
        parameters=_parameters(reader),
        seconds=_seconds(reader),
        minutes=_minutes(reader),
    )


def _parameters(reader: Reader) -> int | None:
    if "parameters" not in (reader.content.get("trainable") or {}):
        return None
    return reader.get("trainable.parameters", int)


def _seconds(reader: Reader) -> float | None:
    run = reader.content.get("run") or {}
    if run.get("resumed") or "seconds" not in run:
        return None
    return reader.number("run.seconds")


def _minutes(reader: Reader) -> float | None:
    run = reader.content.get("run") or {}
    if run.get("resumed") or "time_split" not in run:
        return None
    split = reader.get("run.time_split", dict)
    return sum(reader.number(f"run.time_split.{key}") for key in split) / 60


def _unfinished(folder: Path, status: str, content: dict) -> Run:
    protocol = content.get("protocol") or {}
    method = protocol.get("method", "")
    return Run(
        folder=folder,
        status=status,
        method=method,
        suite=protocol.get("suite", ""),
        shots=_shots(method, protocol.get("shots", 0)),
        seed=protocol.get("seed"),
        variant=_variant(folder, content),
        error=str((content.get("run") or {}).get("error", "")),
    )


def _shots(method: str, shots: int) -> int:
    return 0 if method.lower().startswith(ZERO_SHOT) else shots


def _tasks(reader: Reader) -> dict[str, dict]:
    return _labelled(
        (
            reader.get(f"tasks.{i}.id", int),
            reader.get(f"tasks.{i}.name", str),
            reader.percentage(f"tasks.{i}.value"),
        )
        for i, _ in enumerate(reader.get("tasks", list))
    )


def _labelled(found: Iterable[tuple[int, str, float | None]]) -> dict[str, dict]:
    """Tasks by name, and by number too where a name comes twice."""
    tasks: dict[str, dict] = {}
    for number, name, value in found:
        label = name if name not in tasks else f"{name} (task {number})"
        tasks[label] = {"id": number, "name": name, "value": value}
    return tasks


def _variant(folder: Path, content: dict) -> dict[str, str]:
    """Everything that seeds of one experiment share: the protocol, the weights, the config."""
    protocol = content.get("protocol") or {}
    facts = {k: v for k, v in protocol.items() if k not in NOT_VARIANT}
    options = facts.pop("options", None)
    if isinstance(options, dict):
        facts |= options
    weights = (content.get("hashes") or {}).get("weights")
    if weights:
        facts["weights"] = str(weights)[:8]
    if protocol:  # a run that stopped before knows nothing that could be compared
        facts |= {
            key: value
            for key, value in flat(read_config(folder)).items()
            if key not in NOT_RECIPE and not key.startswith("TRAINER.")
        }
    return {key: str(value) for key, value in facts.items()}
