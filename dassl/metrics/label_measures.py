"""Measures of tasks whose labels are sets of classes, or classes in an order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class SetMeasures(NamedTuple):
    """How well sets of classes are predicted; None without any positive image.

    mean_average_precision: mean of the classes' average precisions, in percent.
    macro_f1: mean of the classes' F1 at the threshold, in percent.
    exact: number of images whose whole set is predicted.
    left_out: number of classes that no image has; the means leave them out.
    """

    mean_average_precision: float | None
    macro_f1: float | None
    exact: int
    left_out: int


def set_measures(probability: np.ndarray, target: np.ndarray, threshold: float) -> SetMeasures:
    """Mean average precision (scikit-learn's) and F1 of probabilities (N, C).

    Args:
        target: (N, C) bool.
        threshold: probability from which a class counts as predicted.
    """
    predicted = probability >= threshold
    exact = int((predicted == target).all(axis=1).sum())
    tested = np.flatnonzero(target.any(axis=0))
    left_out = target.shape[1] - len(tested)
    if not len(tested):
        return SetMeasures(None, None, exact, left_out)
    precisions = [p for p in average_precisions(probability, target) if p is not None]
    hits = (predicted & target).sum(axis=0)[tested]
    f1 = 2 * hits / (predicted.sum(axis=0) + target.sum(axis=0))[tested]
    return SetMeasures(float(np.mean(precisions)), float(100 * f1.mean()), exact, left_out)


def average_precisions(probability: np.ndarray, target: np.ndarray) -> list[float | None]:
    """The average precision of each class (scikit-learn's), in percent; None if no image has it.

    Args:
        probability, target: as in :func:`set_measures`.
    """
    from sklearn.metrics import average_precision_score  # here, since the import takes a second

    pairs = zip(target.T, probability.T, strict=True)
    return [100 * float(average_precision_score(t, p)) if t.any() else None for t, p in pairs]


def mean_absolute_error(predicted: torch.Tensor, label: torch.Tensor) -> float:
    """Mean distance of classes (N,) to the labels (N,), in steps of the order of the classes."""
    return (predicted.cpu() - label.cpu()).abs().double().mean().item()
