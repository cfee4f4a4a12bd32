"""How well probabilities match how often they are right: ECE, NLL and the reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from dassl.metrics.calibration import Bin, calibration_measures, reliability
from dassl.utils import read_json

from .predictions import ImageResults, read_predictions
from .schema import FILE


@dataclass(frozen=True)
class CalibrationMeasures:
    """How well calibrated a model is on the test images of a task.

    Args:
        ece: expected calibration error, in percent.
        nll: mean negative log-likelihood of the right class, in nats.
        bins: those that hold images, from low to high probability.
    """

    ece: float
    nll: float
    bins: tuple[Bin, ...]


def measure_calibration(found: ImageResults, places: np.ndarray) -> CalibrationMeasures:
    """The calibration on the images at ``places`` (n,)."""
    probability = found.probabilities[places, 0].astype(np.float64)
    correct = found.correct[places]
    return CalibrationMeasures(
        **calibration_measures(probability, correct, found.label_probability[places]),
        bins=reliability(probability, correct),
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


@cache
def calibration_before(folder: Path) -> tuple[float | None, float | None]:
    """ECE and NLL of a run before its logits were calibrated (``TEST.CALIBRATION``), means over
    its tasks; None for a run without.
    """
    record = read_json(folder / FILE) if (folder / FILE).exists() else {}
    tasks = [t for t in record.get("calibration", {}).get("tasks", []) if "ece_before" in t]
    if not tasks:
        return None, None
    return (
        sum(task["ece_before"] for task in tasks) / len(tasks),
        sum(task["nll_before"] for task in tasks) / len(tasks),
    )
