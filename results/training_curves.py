"""Training curves, read back from the TensorBoard files of a run, or from its scalars.csv."""

from __future__ import annotations

from csv import DictReader
from pathlib import Path

Curve = list[tuple[int, float]]  # steps and values


def read_curves(folder: Path, prefix: str = "train/") -> dict[str, dict[str, Curve]]:
    """Name of a scalar -> part of the run -> curve; a run on each task has a part per task.

    A file that cannot be read is left out: curves are an extra, the results are in the record.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for path in sorted(folder.glob("**/scalars.csv")):
        points = _points(path)
        name = _part(path.parent, folder)
        for tag, step, value in points:
            if tag.startswith(prefix):
                tag = tag.removeprefix(prefix)
                found.setdefault(tag, {}).setdefault(name, {})[step] = value
    _add_events(found, folder, prefix)
    return {
        tag: {part: sorted(steps.items()) for part, steps in parts.items()}
        for tag, parts in found.items()
    }


def _points(path: Path) -> list[tuple[str, int, float]]:
    """Name, step and value of the complete lines of a CSV; none if it holds something else."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                (row["name"], int(row["step"]), float(row["value"])) for row in DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _part(place: Path, folder: Path) -> str:
    """The part of a run that a folder is of."""
    part = place.relative_to(folder)
    return "" if part == Path() else str(part)


def _add_events(found: dict[str, dict[str, dict[int, float]]], folder: Path, prefix: str) -> None:
    """Add the points of TensorBoard files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for path in sorted(folder.glob("**/tensorboard/events.out.tfevents.*")):
        name = _part(path.parent.parent, folder)
        try:
            for event in EventFileLoader(str(path)).Load():
                for value in event.summary.value if event.HasField("summary") else ():
                    if value.tag.startswith(prefix):
                        tag = value.tag.removeprefix(prefix)
                        number = value.tensor.float_val or [value.simple_value]
                        steps = found.setdefault(tag, {}).setdefault(name, {})
                        steps[event.step] = float(number[0])  # a resumed run's later file wins
        except (OSError, ValueError, RuntimeError):
            continue
