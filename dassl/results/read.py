"""Reading runs: a run is a folder with a ``results.json`` of schema 1."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dassl.utils import UserError, flat, read_json

FILE = "results.json"
SCHEMA = 1
STATUSES = ("running", "interrupted", "failed", "complete")
ONLY_LOG = "log.txt but no results.json"
NO_FILE = "no results.json"
ZERO_SHOT = "zero-shot"  # methods whose name starts so use no training images
OVERALL = "overall_metric"
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
    variant: dict[str, str] = field(default_factory=dict)  # the rest of protocol and config, flat
    parameters: int | None = None  # learned
    seconds: float | None = None  # the whole run; None too if the record covers only a part of it
    minutes: float | None = None  # of training; None too if the record covers only a part of it
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
        """Names of all values: overall_metric, groups, tasks."""
        return [*([] if self.grouped else [OVERALL]), *self.groups, *self.tasks]

    def get(self, key: str) -> float | None:
        """The value named overall_metric, or as a group or task; None if there is none."""
        if key in self.groups:
            return self.groups[key]
        if key in self.tasks:
            return self.tasks[key]["value"]
        return self.overall if key == OVERALL else None


def find_runs(root: str | os.PathLike) -> list[Run]:
    """Every run at or below a folder, sorted by path; hidden folders are left out.

    Folders that hold a log but no record come along as unfinished.

    Raises:
        UserError: there is no such folder, or a record is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    runs = []
    for name, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if FILE in files or "log.txt" in files:
            runs.append(read_run(name))
    return runs


def read_run(folder: str | os.PathLike) -> Run:
    """The run in a folder; without a record it is one whose status says so."""
    folder = Path(folder)
    if (folder / FILE).exists():
        return make_run(folder, read_json(folder / FILE))
    return Run(folder, ONLY_LOG if (folder / "log.txt").exists() else NO_FILE)


def make_run(folder: Path, content: Any) -> Run:
    """A run from the content of its record.

    Raises:
        UserError: a key is missing or holds something else; the message names file and key.
    """
    reader = _Reader(folder / FILE, content)
    status = reader.get("status", str)
    if status not in STATUSES:
        raise reader.error("status", f"is {status!r}, not one of {', '.join(STATUSES)}")
    if status != "complete":
        return _unfinished(folder, status, content)
    method = reader.get("protocol.method", str)
    shots = reader.get("protocol.shots", int)
    for key, value in reader.get("suite.groups", dict).items():
        if not _is_percentage(value):
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


def _parameters(reader: _Reader) -> int | None:
    if "parameters" not in (reader.content.get("trainable") or {}):
        return None
    return reader.get("trainable.parameters", int)


def _seconds(reader: _Reader) -> float | None:
    run = reader.content.get("run") or {}
    if run.get("resumed") or "seconds" not in run:
        return None
    return reader.number("run.seconds")


def _minutes(reader: _Reader) -> float | None:
    run = reader.content.get("run") or {}
    if run.get("resumed") or "time_split" not in run:
        return None
    split = reader.get("run.time_split", dict)
    return sum(reader.number(f"run.time_split.{key}") for key in split if key != "test") / 60


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


def _tasks(reader: _Reader) -> dict[str, dict]:
    tasks: dict[str, dict] = {}
    for i, _ in enumerate(reader.get("tasks", list)):
        name = reader.get(f"tasks.{i}.name", str)
        number = reader.get(f"tasks.{i}.id", int)
        value = reader.percentage(f"tasks.{i}.value")
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


def read_config(folder: Path) -> dict:
    """The configuration of a run, as far as it is recorded.

    Raises:
        UserError: the file is there, but is no YAML of keys and values.
    """
    path = folder / "config.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).split("\n")[0]
        raise UserError(f"{path} cannot be read as YAML: {first}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values")
    return content


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_percentage(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 <= value <= 100)


class _Reader:
    """Looks up dotted keys in a record, with errors that name the file and the key."""

    def __init__(self, file: Path, content: Any):
        self.file, self.content = file, content
        if not isinstance(content, dict):
            raise UserError(f"{file} must hold keys and values, not a {type(content).__name__}")
        if content.get("schema") != SCHEMA:
            raise self.error("schema", f"is {content.get('schema')!r}; this version reads {SCHEMA}")

    def error(self, key: str, what: str) -> UserError:
        return UserError(f"{self.file}: {key} {what}")

    def get(self, key: str, kind: type | None = None) -> Any:
        node = self.content
        for part in key.split("."):
            try:
                node = node[int(part)] if isinstance(node, list) else node[part]
            except (KeyError, TypeError):
                raise self.error(key, "is missing") from None
        if kind is not None and (not isinstance(node, kind) or isinstance(node, bool)):
            raise self.error(key, f"must be of type {kind.__name__}, but is {node!r}")
        return node

    def percentage(self, key: str) -> float | None:
        value = self.get(key)
        if not _is_percentage(value):
            raise self.error(key, f"must be a percentage, but is {value!r}")
        return value

    def number(self, key: str) -> float:
        value = self.get(key)
        if not _is_number(value):
            raise self.error(key, f"must be a number, but is {value!r}")
        return value
