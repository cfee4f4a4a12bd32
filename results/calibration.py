"""How well probabilities match how often they are right: ECE, NLL and the reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from .predictions import ImageResults, read_predictions

BINS = 15  # of equal width, as usual for the ECE: https://arxiv.org/abs/1706.04599


@dataclass(frozen=True)
class Bin:
    """The images whose probability of the predicted class lies in one bin.

    Args:
        images: their share of all images.
        probability: mean over the images of the bin.
        accuracy: share of them that are classified right.
    """

    images: float
    probability: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Calibration on the test images of a task.

    Args:
        ece: expected calibration error, in percent.
        nll: mean negative log-likelihood of the right class, in nats.
        bins: those that hold images, from low to high probability.
    """

    ece: float
    nll: float
    bins: tuple[Bin, ...]


def measure_calibration(found: ImageResults, places: np.ndarray) -> Calibration:
    """The calibration on the images at ``places`` (n,)."""
    probability = found.probabilities[places, 0].astype(np.float64)
    correct = found.correct[places]
    likelihood = found.label_probability[places].clip(1e-30)
    return Calibration(
        ece=100 * calibration_error(probability, correct),
        nll=float(-np.log(likelihood).mean()),
        bins=reliability(probability, correct),
    )


def calibration_error(probability: np.ndarray, correct: np.ndarray) -> float:
    """Mean over images of |accuracy - mean probability| within the bin of the image's probability.

    Args:
        probability: (N,) of the predicted class.
        correct: (N,) bool.
    """
    bins = reliability(probability, correct)
    return float(sum(one.images * abs(one.accuracy - one.probability) for one in bins))


def reliability(probability: np.ndarray, correct: np.ndarray) -> tuple[Bin, ...]:
    """The bins that hold images; arguments as in :func:`calibration_error`."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, weights=probability, minlength=BINS)
    hits = np.bincount(place, weights=correct.astype(np.float64), minlength=BINS)
    return tuple(
        Bin(counts[i] / len(probability), sums[i] / counts[i], hits[i] / counts[i])
        for i in np.flatnonzero(counts)
    )


@cache
def mean_calibration(folder: Path) -> tuple[float | None, float | None]:
    """ECE in percent and NLL of a run, means over its tasks; None without ``predictions.npz``.

    Raises:
        UserError: the file is broken.
    """
    found = read_predictions(folder)
    if found is None or not len(found.task):
        return None, None
    tasks = [measure_calibration(found, np.flatnonzero(found.task == t)) for t in set(found.task)]
    return (
        sum(task.ece for task in tasks) / len(tasks),
        sum(task.nll for task in tasks) / len(tasks),
    )
