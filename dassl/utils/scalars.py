"""The file ``scalars.csv``, in which a run keeps the curves of its training."""

from __future__ import annotations

import csv
from pathlib import Path

CSV_FILE = "scalars.csv"
HEAD = ("name", "step", "value")

Point = tuple[str, int, float]  # name, step and value


def read_points(path: Path) -> tuple[int, list[Point]]:
    """The length in bytes of the complete lines of a file, and the points in them.

    A last line without its end was being written when the run was killed: it does not count. A
    file that is not there or holds something else counts as empty.
    """
    if not path.exists():
        return 0, []
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    rows = list(csv.reader(content.decode("utf-8", "replace").splitlines()))
    if not rows or tuple(rows[0]) != HEAD:
        return 0, []
    return len(content), [point for row in rows[1:] if (point := _point(row))]


def _point(row: list[str]) -> Point | None:
    """The point of a line; None if it holds something else."""
    try:
        name, step, value = row
        return name, int(step), float(value)
    except ValueError:
        return None
