"""Training curves, read back from the TensorBoard files of a run."""

from __future__ import annotations

from pathlib import Path

Curve = list[tuple[int, float]]  # steps and values


def read_curves(folder: Path, prefix: str = "train/") -> dict[str, dict[str, Curve]]:
    """Name of a scalar -> part of the run -> curve; a run on each task has a part per task.

    A file that cannot be read is left out: curves are an extra, the results are in the record.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, dict[str, dict[int, float]]] = {}
    for path in sorted(folder.glob("**/tensorboard/events.out.tfevents.*")):
        part = path.parent.parent.relative_to(folder)
        name = "" if part == Path() else str(part)
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
    return {
        tag: {part: sorted(steps.items()) for part, steps in parts.items()}
        for tag, parts in found.items()
    }
