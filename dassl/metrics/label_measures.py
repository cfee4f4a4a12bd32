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
    from sklearn.metrics import average_precision_score  # here, since the import takes a second

    predicted = probability >= threshold
    exact = int((predicted == target).all(axis=1).sum())
    tested = np.flatnonzero(target.any(axis=0))
    left_out = target.shape[1] - len(tested)
    if not len(tested):
        return SetMeasures(None, None, exact, left_out)
    precisions = [average_precision_score(target[:, c], probability[:, c]) for c in tested]
    hits = (predicted & target).sum(axis=0)[tested]
    f1 = 2 * hits / (predicted.sum(axis=0) + target.sum(axis=0))[tested]
    return SetMeasures(float(100 * np.mean(precisions)), float(100 * f1.mean()), exact, left_out)


def mean_absolute_error(predicted: torch.Tensor, label: torch.Tensor) -> float:
    """Mean distance of classes (N,) to the labels (N,), in steps of the order of the classes."""
    return (predicted.cpu() - label.cpu()).abs().double().mean().item()
