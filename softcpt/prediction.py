"""The most probable classes of an image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image in one task.

    In a multi-label task these are all classes above the threshold, and may be none.

    Args:
        image: the path; "" for an image in memory without one.
        task: name of the task.
        labels: class names, the most probable first.
        probabilities: of these classes, among all classes of the task.
        error: why the image could not be read; all but its path is then empty.
    """

    image: str
    task: str = ""
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""

    @property
    def label(self) -> str:
        """The most probable class; "" if there is none, or the image could not be read."""
        return self.labels[0] if self.labels else ""

    @property
    def probability(self) -> float:
        """The probability of ``label``; 0 if there is none."""
        return self.probabilities[0] if self.probabilities else 0.0
