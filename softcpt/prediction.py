"""The most probable classes of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image in one task.

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
        """The most probable class; "" if the image could not be read."""
        return self.labels[0] if self.labels else ""

    @property
    def probability(self) -> float:
        """The probability of :attr:`label`; 0 if the image could not be read."""
        return self.probabilities[0] if self.probabilities else 0.0


def most_probable(logits: torch.Tensor, top: int) -> tuple[list[list[int]], list[list[float]]]:
    """Classes of the highest logits (B, C), and their probabilities among all C."""
    best = logits.softmax(dim=1).topk(min(top, logits.shape[1]), dim=1)
    return best.indices.tolist(), best.values.tolist()
