"""Temperature scaling of probabilities, and how well they are calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import BINS

LOWEST, HIGHEST = 0.05, 20.0  # temperatures


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


def fit_temperature(logits: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float:
    """The temperature T at which softmax(logits / T) gives the labels the largest likelihood.

    The negative log-likelihood is convex in 1/T, so that the search along log T finds its only
    minimum. If every label has the largest logit it falls towards temperature 0, and a value near
    LOWEST comes back. https://arxiv.org/abs/1706.04599

    Args:
        logits: (n, C) of the images of each task, among its own classes.
        labels: (n,) class within the task, of each task.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: mean_nll(logits, labels, np.exp(log_t)),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-7, "maxiter": 200},
    )
    return float(np.exp(found.x))


def mean_nll(
    logits: Sequence[np.ndarray], labels: Sequence[np.ndarray], temperature: float = 1.0
) -> float:
    """Mean negative log-likelihood of the labels, in nats, at a temperature."""
    total, images = 0.0, 0
    for rows, label in zip(logits, labels, strict=True):
        x = rows.astype(np.float64) / temperature
        x -= x.max(axis=1, keepdims=True)
        log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        total -= log_p[np.arange(len(label)), label].sum()
        images += len(label)
    return total / images


def calibration_error(probability: np.ndarray, correct: np.ndarray) -> float:
    """Mean over images of |accuracy - mean probability| within the bin of the image's probability.

    Args:
        probability: (N,) of the predicted class.
        correct: (N,) bool.
    """
    bins = reliability(probability, correct)
    return float(sum(one.images * abs(one.accuracy - one.probability) for one in bins))


def reliability(probability: np.ndarray, correct: np.ndarray) -> tuple[Bin, ...]:
    """The bins that hold images; arguments as in :func:`calibration_error`.

    A probability that is not a number, as of a model that has diverged, counts as 0.
    """
    probability = np.nan_to_num(probability)
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, weights=probability, minlength=BINS)
    hits = np.bincount(place, weights=correct.astype(np.float64), minlength=BINS)
    return tuple(
        Bin(counts[i] / len(probability), sums[i] / counts[i], hits[i] / counts[i])
        for i in np.flatnonzero(counts)
    )


def calibration_measures(
    probability: np.ndarray, correct: np.ndarray, label_probability: np.ndarray
) -> dict[str, float]:
    """``ece``, the expected calibration error in percent, and ``nll`` in nats.

    Args:
        probability: (N,) of the predicted class.
        correct: (N,) bool.
        label_probability: (N,) of the right class.
    """
    likelihood = np.log(np.nan_to_num(np.asarray(label_probability, np.float64)).clip(1e-30))
    return {
        "ece": 100 * calibration_error(np.asarray(probability, np.float64), correct),
        "nll": float(-likelihood.mean()),
    }
