"""Predictions as text: a table for a terminal, CSV, or one JSON object per line."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from dassl.utils import unknown_name

from .prediction import Prediction
from .run import LoadedRun

DIGITS = 6  # of probabilities in CSV and JSON


class Writer:
    """Writes predictions one by one, as they are made.

    Args:
        file: where to write.
        run: the run that predicts.
        ids: numbers of its tasks that are predicted.
        images: paths of all images, for the width of a column.
        top: classes per image.
    """

    def __init__(
        self, file: TextIO, run: LoadedRun, ids: Sequence[int], images: Sequence[str], top: int
    ):
        self.file = file
        self.tasks = [run.tasks[t] for t in ids]
        self.top = max(t.kind.most_shown(top, len(t.classnames)) for t in self.tasks)
        self.image_width = max(len("image"), *map(len, images))
        self.begin()

    def begin(self) -> None:
        """Write what comes before the first prediction."""

    def write(self, found: Prediction) -> None:
        """Write one prediction."""
        raise NotImplementedError


class Table(Writer):
    """Aligned columns below a line of titles; images that cannot be read are left out."""

    def begin(self) -> None:
        self._task_width = max(len("task"), *(len(task.name) for task in self.tasks))
        names = [name for task in self.tasks for name in task.classnames]
        self._class_width = max(len("class 2"), *map(len, names))
        head = [f"{'image':<{self.image_width}}"]
        if len(self.tasks) > 1:
            head.append(f"{'task':<{self._task_width}}")
        for rank in range(1, self.top + 1):
            title = "class" if rank == 1 else f"class {rank}"
            head.append(f"{'%':>6} {title:<{self._class_width}}")
        print("  ".join(head).rstrip(), file=self.file)

    def write(self, found: Prediction) -> None:
        if found.error:
            return
        cells = [f"{found.image:<{self.image_width}}"]
        if len(self.tasks) > 1:
            cells.append(f"{found.task:<{self._task_width}}")
        for label, probability in zip(found.labels, found.probabilities, strict=True):
            cells.append(f"{probability:>6.1%} {label:<{self._class_width}}")
        print("  ".join(cells).rstrip(), file=self.file)


class CSV(Writer):
    """A row per image and task; an image that cannot be read has a row with its error."""

    def begin(self) -> None:
        head = ["image", "task", "label", "probability"]
        for rank in range(2, self.top + 1):
            head += [f"label_{rank}", f"probability_{rank}"]
        self._columns = len(head)
        self._writer = csv.writer(self.file, lineterminator="\n")
        self._writer.writerow([*head, "error"])

    def write(self, found: Prediction) -> None:
        row = [found.image, found.task]
        for label, probability in zip(found.labels, found.probabilities, strict=True):
            row += [label, f"{probability:.{DIGITS}f}"]
        row += [""] * (self._columns - len(row))  # tasks have different numbers of classes
        self._writer.writerow([*row, found.error])


class JSONLines(Writer):
    """An object per image and task, with ``error`` for an image that cannot be read."""

    def write(self, found: Prediction) -> None:
        content: dict = {"image": found.image}
        if found.error:
            content["error"] = found.error
        else:
            pairs = zip(found.labels, found.probabilities, strict=True)
            content["task"] = found.task
            content["classes"] = [{"label": a, "probability": round(b, DIGITS)} for a, b in pairs]
        print(json.dumps(content, ensure_ascii=False), file=self.file)


FORMATS: dict[str, type[Writer]] = {"table": Table, "csv": CSV, "jsonl": JSONLines}


def choose_format(name: str, out: str) -> type[Writer]:
    """The writer of a format; without a name, that of the output file's suffix, or a table."""
    suffix = Path(out).suffix.lstrip(".").lower()
    name = name or (suffix if suffix in FORMATS else "table")
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]
