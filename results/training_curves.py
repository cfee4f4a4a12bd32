"""Training curves, read back from the TensorBoard files of a run, or from its scalars.csv."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from dassl.utils.scalars import CSV_FILE, Point, read_points

Curve = list[tuple[int, float]]  # steps and values
PREFIX = "train/"  # of the names of the points of a training


def read_curves(folder: Path) -> dict[str, dict[str, Curve]]:
    """Name of a training curve -> part of the run -> curve; a run on each task has a part per task.

    A file that cannot be read is named and left out: the results are in the record.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for path in sorted(folder.glob(f"**/{CSV_FILE}")):
        points = _points(path)
        name = _part(path.parent, folder)
        for tag, step, value in points:
            if tag.startswith(PREFIX):
                tag = tag.removeprefix(PREFIX)
                found.setdefault(tag, {}).setdefault(name, {})[step] = value
    _add_events(found, folder)
    return {
        tag: {part: sorted(steps.items()) for part, steps in parts.items()}
        for tag, parts in found.items()
    }


def _points(path: Path) -> list[Point]:
    """The points of a CSV; none if it cannot be read."""
    try:
        return read_points(path)[1]
    except (OSError, csv.Error) as error:
        _print_unread(path, error)
        return []


def _print_unread(path: Path, error: Exception) -> None:
    print(f"no curve from {path}: {type(error).__name__}", file=sys.stderr)


def _part(place: Path, folder: Path) -> str:
    """The part of a run that a folder is of."""
    part = place.relative_to(folder)
    return "" if part == Path() else str(part)


def _add_events(found: dict[str, dict[str, dict[int, float]]], folder: Path) -> None:
    """Add the points of TensorBoard files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for path in sorted(folder.glob("**/tensorboard/events.out.tfevents.*")):
        name = _part(path.parent.parent, folder)
        try:
            for event in EventFileLoader(str(path)).Load():
                for value in event.summary.value if event.HasField("summary") else ():
                    if value.tag.startswith(PREFIX):
                        tag = value.tag.removeprefix(PREFIX)
                        number = value.tensor.float_val or [value.simple_value]
                        steps = found.setdefault(tag, {}).setdefault(name, {})
                        steps[event.step] = float(number[0])  # a resumed run's later file wins
        except Exception as error:  # TensorBoard has classes of its own
            _print_unread(path, error)
