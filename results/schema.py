"""The schema of ``results.json``, and errors that name the file and the key that is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dassl.utils import UserError

FILE = "results.json"
SCHEMA = 2
READABLE = (1, SCHEMA)  # 1 does not record the identity of the data
STATUSES = ("running", "interrupted", "failed", "complete")
# Configuration keys that do not change what a run computes, only where and how.
NOT_HASHED = (
    "OUTPUT_DIR",
    "LOGGERS",
    "RESUME",
    "USE_CUDA",
    "VERBOSE",
    "MODEL.INIT_FROM",  # hashed by the content of its checkpoints instead
    "COMPUTE.CHANNELS_LAST",
    "COMPUTE.COMPILE",
    "COMPUTE.CUDNN_BENCHMARK",
    "COMPUTE.FUSED_OPTIMIZER",
    "COMPUTE.GRAPHS",
    "COMPUTE.TF32",
    "DATASET.ROOT",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.OLD_DATA_PATH",
    "DATALOADER.NEW_DATA_PATH",
    "FEATURES.DIR",
    "FEATURES.LIMIT_GB",
    "FEATURES.MODE",
    "TRAIN.PRINT_FREQ",
    "TRAIN.TASK_GRADIENTS",
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.RESUME_SECONDS",
)
# Keys that older runs do not have, with the value that has no effect: left out then, so that older
# runs keep their hash.
NEWER: dict[str, Any] = {
    "TEST.CALIBRATION": "",
    "TRAINER.PLOT.GLOBAL_TERM": False,
    "TRAINER.ZEROSHOT2.OWN_TEMPLATE": True,
    "INPUT.EXIF": "ignore",
    "DATASET.COLUMNS": [],
    "DATALOADER.TRAIN_X.TEMPERATURE": 2.0,
    "DATALOADER.TRAIN_X.EPOCH": "images",
    "TEST.TASK_GIVEN": True,
    "OPTIM.TASK_WEIGHTS": "none",
    "OPTIM.TASK_WEIGHT_VALUES": [],
    "OPTIM.TASK_WEIGHT_LR": 0.05,
    "OPTIM.LOSS_SCALE": 65536.0,
    "OPTIM.MULTI_LABEL_LOSS": "binary",
    "OPTIM.POSITIVE_WEIGHT": 1.0,
    "OPTIM.LOGIT_BIAS": 0.0,
    "OPTIM.ORDINAL_WEIGHT": 1.0,
}


class RecordReader:
    """Looks up dotted keys in the content of a ``results.json``.

    Args:
        file: the path of the record, for messages.
        content: the parsed JSON.

    Raises:
        UserError: the content is no record of a schema that this version reads. The methods raise
            it for a key that is missing or holds something else.
    """

    def __init__(self, file: Path, content: Any):
        self.file, self.content = file, content
        if not isinstance(content, dict):
            raise UserError(f"{file} must hold keys and values, not a {type(content).__name__}")
        if content.get("schema") not in READABLE:
            raise self.error("schema", f"is {content.get('schema')!r}; this version reads 1 and 2")
        self.status = self.get("status", str)
        if self.status not in STATUSES:
            raise self.error("status", f"is {self.status!r}, not one of {', '.join(STATUSES)}")

    def error(self, key: str, problem: str) -> UserError:
        """The error to raise for a key."""
        return UserError(f"{self.file}: {key} {problem}")

    def section(self, key: str) -> dict[str, Any]:
        """An optional top-level object, such as ``run``; empty where the record has none."""
        return self.get(key, dict) if self.content.get(key) else {}

    def get(self, key: str, kind: type | None = None) -> Any:
        """The value at a dotted key, of the given type."""
        node = self.content
        for name in key.split("."):
            try:
                node = node[int(name)] if isinstance(node, list) else node[name]
            except (KeyError, IndexError, TypeError, ValueError):
                raise self.error(key, "is missing") from None
        if kind is not None and (not isinstance(node, kind) or isinstance(node, bool)):
            raise self.error(key, f"must be of type {kind.__name__}, but is {node!r}")
        return node

    def optional(self, key: str, kind: type, otherwise: Any) -> Any:
        """The value of ``section.name``, of the given type; ``otherwise`` without one."""
        section, name = key.split(".")
        return self.get(key, kind) if name in self.section(section) else otherwise

    def percentage(self, key: str) -> float | None:
        """The percentage at a dotted key; None for a task without test images."""
        return self.check_percentage(key, self.get(key))

    def check_percentage(self, key: str, value: Any) -> float | None:
        """The value, which must be None or a number from 0 to 100."""
        if value is not None and not is_percentage(value):
            raise self.error(key, f"must be a percentage, but is {value!r}")
        return value

    def measure(self, key: str) -> float | None:
        """The number at a dotted key; None if there was nothing to measure."""
        return None if self.get(key) is None else self.number(key)

    def number(self, key: str) -> float:
        """The finite number at a dotted key."""
        value = self.get(key)
        if not is_number(value):
            raise self.error(key, f"must be a number, but is {value!r}")
        return value


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def is_percentage(value: Any) -> bool:
    """Whether a value is a number from 0 to 100."""
    return is_number(value) and 0 <= value <= 100
