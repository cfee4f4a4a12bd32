"""Reads runs from their folders: from ``results.json``, or else from a log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dassl.utils import UserError, read_json

from .logs import Log, log_files, read_logs
from .schema import FILE, RecordReader
from .settings import settings_of_log, settings_of_record

ONLY_LOG = "no results.json, and a log without an end"
NO_FILE = "no results.json"
ZERO_SHOT = ("zero-shot", "zeroshotclip")  # prefixes of methods that use no training images
OVERALL = "overall_metric"
# means of an evaluation that is not told the task of an image, with their titles in tables
WITHOUT_TASK = {"without_task": "task not given", "task_chosen": "task chosen right"}
OVERALL_NAMES = (OVERALL, "accuracy")  # in the logs of SoftCPT and of CoOp


@dataclass(frozen=True)
class Run:
    """One run. Values are percentages; None means that there is no test image.

    A run that is not complete has the fields that its record held when it stopped.

    Args:
        status: one of STATUSES, NO_FILE or ONLY_LOG.
        shots: training images per class; 0: the method uses none, -1: all images.
        tasks: id, name, value and further measures of each task, by name.
        overall: mean over tasks; None if the tasks belong to several groups.
        groups: mean of each group of tasks.
        extra: further values of a log, such as macro_f1, or of an evaluation without tasks.
        settings: everything else that seeds of one experiment share: the rest of the protocol
            and of the configuration, and the hash of the weights.
        parameters: number of learned values.
        seconds: wall-clock time of the run; None if it was resumed, as only a part was measured.
        work_seconds: of training and evaluation; None if it was resumed.
        peak_memory: bytes, of the GPU if the run used one, else of the process.
        error: why a failed run failed.
        data: summary of the data's identity; empty if it was not recorded.
        test_subset: such as "500 of 1,000 test images"; "" if the full test split is evaluated.
        unknown: what was not recorded, for a remark.
    """

    folder: Path
    status: str
    method: str = ""
    suite: str = ""
    shots: int = 0
    seed: int | None = None
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    overall: float | None = None
    groups: dict[str, float | None] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    parameters: int | None = None
    seconds: float | None = None
    work_seconds: float | None = None
    peak_memory: float | None = None
    error: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    test_subset: str = ""
    unknown: str = ""

    @property
    def complete(self) -> bool:
        """Whether the run may be averaged."""
        return self.status == "complete"

    @property
    def grouped(self) -> bool:
        """Whether the tasks belong to several groups, so that there is no overall value."""
        return self.overall is None and len(self.groups) > 1

    @property
    def measures(self) -> dict[str, float | None]:
        """Further measures of the tasks, such as ``age, MAE``; not all are percentages."""
        return {
            f"{name}, {measure}": value
            for name, task in self.tasks.items()
            for measure, value in task.get("measures", {}).items()
        }

    def value_names(self) -> list[str]:
        """Names of all values: overall_metric, groups, tasks, further values of a log."""
        return [*([] if self.grouped else [OVERALL]), *self.groups, *self.tasks, *self.extra]

    def get(self, key: str) -> float | None:
        """The value of ``overall_metric``, a group, a task or a further value; None if missing."""
        if key in self.groups:
            return self.groups[key]
        if key in self.tasks:
            return self.tasks[key]["value"]
        if key == OVERALL:
            return self.overall
        return self.extra[key] if key in self.extra else self.measures.get(key)


def find_runs(root: str | os.PathLike, test_log: bool = False) -> list[Run]:
    """Every run at or below a folder, sorted by path, also behind links; not in hidden folders.

    Args:
        test_log: see :func:`read_run_or_log`.

    Raises:
        UserError: the folder does not exist, or a record is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    runs, visited = [], set()
    for name, folders, files in os.walk(root, followlinks=True):
        if (place := os.path.realpath(name)) in visited:
            folders[:] = []  # a link to a folder that is read already, such as one above it
            continue
        visited.add(place)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if FILE in files or log_files(Path(name)):
            runs.append(read_run_or_log(name, test_log))
    return runs


def read_run(folder: str | os.PathLike) -> Run:
    """The run in a folder; one without a record has the status NO_FILE or ONLY_LOG."""
    folder = Path(folder)
    if (folder / FILE).exists():
        return make_run(folder, read_json(folder / FILE))
    return Run(folder, ONLY_LOG if log_files(folder) else NO_FILE)


def read_run_or_log(folder: str | os.PathLike, test_log: bool = False) -> Run:
    """The run in a folder, from its record or else from a log that reached its end.

    Args:
        test_log: logs are those of evaluations, which end with a result, not those of trainings.
    """
    run = read_run(folder)
    log = read_logs(run.folder, test_log) if run.status == ONLY_LOG else None
    return run if log is None else _run_of_log(run.folder, log)


def _run_of_log(folder: Path, log: Log) -> Run:
    """The run that a log describes; a missing method or seed comes from the folders' names."""
    logged, values = log.settings, dict(log.values)
    seed = logged.get("SEED", "") if logged.get("SEED", "-1") != "-1" else folder.name
    number = re.search(r"\d+$", seed)
    overall = next((values[name] for name in OVERALL_NAMES if name in values), None)
    values.pop(OVERALL, None)
    method = logged.get("TRAINER.NAME") or folder.parent.name
    shots = logged.get("DATASET.NUM_SHOTS", "")
    keys = {"backbone": "MODEL.BACKBONE.NAME", "classes": "DATASET.SUBSAMPLE_CLASSES"}
    settings = {name: logged[key] for name, key in keys.items() if key in logged}
    return Run(
        folder=folder,
        status="complete",
        method=method,
        suite=logged.get("DATASET.NAME") or "unknown suite",
        shots=_shots(method, int(shots) if re.fullmatch(r"-?\d+", shots) else 0),
        seed=int(number[0]) if number else None,
        tasks=_by_name(((i, *one) for i, one in sorted(log.tasks.items())), log.groups),
        overall=overall,
        groups=dict(log.groups),
        extra=values,
        settings=settings | settings_of_log(log),
        unknown="a log does not tell the images, their labels and the weights",
    )


def make_run(folder: Path, content: Any) -> Run:
    """The run of a record.

    Raises:
        UserError: a key is missing or holds something else; the message names file and key.
    """
    reader = RecordReader(folder / FILE, content)
    if reader.status != "complete":
        return _unfinished(folder, reader)
    method = reader.get("protocol.method", str)
    shots = reader.get("protocol.shots", int)
    for key, value in reader.get("suite.groups", dict).items():
        reader.check_percentage(f"suite.groups.{key}", value)
    return Run(
        folder=folder,
        status=reader.status,
        method=method,
        suite=reader.get("protocol.suite", str),
        shots=_shots(method, shots),
        seed=reader.get("protocol.seed", int),
        tasks=_tasks(reader),
        overall=reader.percentage("suite.value"),
        groups=reader.get("suite.groups", dict),
        extra=_without_task(reader),
        settings=settings_of_record(folder, reader),
        parameters=reader.optional("trainable.parameters", int, None),
        seconds=_seconds(reader),
        work_seconds=_work_seconds(reader),
        peak_memory=_peak_memory(reader),
        data=reader.section("data"),
        test_subset=_test_subset(reader),
        unknown="" if reader.section("data") else "a record of schema 1 does not tell the data",
    )


def _without_task(reader: RecordReader) -> dict[str, float]:
    """Means of an evaluation that was not told the tasks (``TEST.TASK_GIVEN False``), if any."""
    keys = [key for key in WITHOUT_TASK if key in reader.section("suite")]
    means = {key: reader.percentage(f"suite.{key}.value") for key in keys}
    return {key: value for key, value in means.items() if value is not None}


def _test_subset(reader: RecordReader) -> str:
    if "test_subset" not in reader.section("data"):
        return ""
    items, full = (reader.get(f"data.test_subset.{key}", int) for key in ("items", "of"))
    return f"{items:,} of {full:,} test {reader.get('data.test_subset.unit', str)}"


def _seconds(reader: RecordReader) -> float | None:
    run = reader.section("run")
    if run.get("resumed") or "seconds" not in run:
        return None
    return reader.number("run.seconds")


def _work_seconds(reader: RecordReader) -> float | None:
    run = reader.section("run")
    if run.get("resumed") or "time_split" not in run:
        return None
    split = reader.get("run.time_split", dict)
    return sum(reader.number(f"run.time_split.{key}") for key in split)


def _peak_memory(reader: RecordReader) -> float | None:
    """The peak of the GPU's memory, or of the process's where there was no GPU."""
    for key in ("peak_gpu_memory", "peak_memory"):
        if key in reader.section("run"):
            return reader.number(f"run.{key}")
    return None


def _unfinished(folder: Path, reader: RecordReader) -> Run:
    method = reader.optional("protocol.method", str, "")
    return Run(
        folder=folder,
        status=reader.status,
        method=method,
        suite=reader.optional("protocol.suite", str, ""),
        shots=_shots(method, reader.optional("protocol.shots", int, 0)),
        seed=reader.optional("protocol.seed", int, None),
        settings=settings_of_record(folder, reader),
        test_subset=_test_subset(reader),
        error=str(reader.section("run").get("error", "")),
    )


def _shots(method: str, shots: int) -> int:
    return 0 if method.lower().startswith(ZERO_SHOT) else shots


def _tasks(reader: RecordReader) -> dict[str, dict]:
    entries = reader.get("tasks", list)
    named = (
        (
            reader.get(f"tasks.{i}.id", int),
            reader.get(f"tasks.{i}.name", str),
            reader.percentage(f"tasks.{i}.value"),
        )
        for i, _ in enumerate(entries)
    )
    tasks = _by_name(named, reader.get("suite.groups", dict) if len(entries) > 1 else ())
    for i, (task, entry) in enumerate(zip(tasks.values(), entries, strict=True)):
        if "measures" in entry:
            key = f"tasks.{i}.measures"
            task["measures"] = {n: reader.measure(f"{key}.{n}") for n in reader.get(key, dict)}
    return tasks


def _by_name(
    entries: Iterable[tuple[int, str, float | None]], groups: Iterable[str] = ()
) -> dict[str, dict]:
    """Tasks by name; one that is a group's or occurs again is followed by its task's number."""
    tasks: dict[str, dict] = {}
    for number, name, value in entries:
        label = f"{name} (task {number})" if name in tasks or name in groups else name
        tasks[label] = {"id": number, "name": name, "value": value}
    return tasks
