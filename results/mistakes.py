"""Where a run goes wrong, task by task: confused classes, accuracy by class, confident mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dassl.utils import UserError

from .calibration import CalibrationMeasures, measure_calibration
from .predictions import FILE as PREDICTIONS
from .predictions import ImageResults, read_predictions
from .tasks_file import FILE as TASKS
from .tasks_file import read_words

WHOLE_MATRIX = 30  # a task with more classes shows the block of those that are confused most
BLOCK = 20  # classes of that block
CLASSES_SHOWN = 30  # those with the lowest accuracy
SHOWN = 8  # confusions and confident mistakes


@dataclass(frozen=True)
class ClassAccuracy:
    """Test images of one class, and how many of them are classified right."""

    name: str
    correct: int
    total: int


@dataclass(frozen=True)
class ConfusionMatrix:
    """Numbers of images by right class (row) and predicted class (column).

    Args:
        whole: whether it holds all classes of the task.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    whole: bool


@dataclass(frozen=True)
class ConfidentMistake:
    """An image that is classified wrong with a high probability.

    Args:
        file: the path of the image relative to DATASET.ROOT, or an absolute one; None in runs that
            did not record it.
    """

    path: str
    file: Path | None
    right: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class TaskMistakes:
    """What a run gets wrong on the test images of one task.

    Args:
        confusions: right class, predicted class, number of images; the most frequent first.
        confident: the most probable first.
        classes: the lowest accuracy first; classes without test images are left out.
        matrix: None for a task in which nothing is wrong.
    """

    task: str
    images: int
    wrong: int
    calibration: CalibrationMeasures
    confusions: tuple[tuple[str, str, int], ...]
    confident: tuple[ConfidentMistake, ...]
    classes: tuple[ClassAccuracy, ...]
    matrix: ConfusionMatrix | None


def find_mistakes(folder: Path) -> list[TaskMistakes]:
    """The mistakes of each task; empty for a run without ``predictions.npz``.

    Multi-label tasks have none there: an image has several right classes, so no single one of them
    is confused with the predicted one, and the classes' probabilities do not sum to 1.

    Raises:
        UserError: a file of the run is broken.
    """
    found = read_predictions(folder)
    if found is None:
        return []
    known = read_words(folder)
    out = []
    for t in np.unique(found.task):
        names = known[t]["classnames"] if t < len(known) else []
        largest = int(max(column[found.task == t].max() for column in (found.label, found.classes)))
        if known and largest >= len(names):
            raise UserError(
                f"{folder / PREDICTIONS} and {folder / TASKS} are not of one run: task {t} has a "
                f"class {largest} in the one, and {len(names)} classes in the other"
            )
        out.append(_of_task(found, int(t), known[t]["name"] if names else f"task {t}", names))
    return out


def _of_task(found: ImageResults, t: int, name: str, known: list[str]) -> TaskMistakes:
    places = np.flatnonzero(found.task == t)
    label, predicted = found.label[places], found.classes[places, 0]
    size = max(len(known), int(label.max()) + 1, int(predicted.max()) + 1)
    names = [*known, *(f"class {i}" for i in range(len(known), size))]
    wrong = np.flatnonzero(label != predicted)
    pairs = Counter(zip(label[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    return TaskMistakes(
        task=name,
        images=len(places),
        wrong=len(wrong),
        calibration=measure_calibration(found, places),
        confusions=tuple((names[a], names[b], n) for (a, b), n in pairs.most_common(SHOWN)),
        confident=_most_confident(found, places[wrong], names),
        classes=_class_accuracies(label, predicted, names),
        matrix=_matrix(label, predicted, names, pairs) if pairs else None,
    )


def _most_confident(
    found: ImageResults, wrong: np.ndarray, names: list[str]
) -> tuple[ConfidentMistake, ...]:
    """The mistakes among the images at ``wrong`` (n,) with the highest probability."""
    order = np.argsort(-found.probabilities[wrong, 0].astype(np.float64), kind="stable")
    shown = []
    for i in wrong[order][:SHOWN]:
        t, path = found.task[i], found.paths[i]
        file = Path(found.folders[t], path) if t < len(found.folders) else None
        right, predicted = names[found.label[i]], names[found.classes[i, 0]]
        probability = float(found.probabilities[i, 0])
        shown.append(ConfidentMistake(path, file, right, predicted, probability))
    return tuple(shown)


def _class_accuracies(
    label: np.ndarray, predicted: np.ndarray, names: list[str]
) -> tuple[ClassAccuracy, ...]:
    totals = np.bincount(label, minlength=len(names))
    hits = np.bincount(label[label == predicted], minlength=len(names))
    shown = sorted(np.flatnonzero(totals).tolist(), key=lambda c: (hits[c] / totals[c], c))
    return tuple(ClassAccuracy(names[c], int(hits[c]), int(totals[c])) for c in shown)


def _matrix(
    label: np.ndarray, predicted: np.ndarray, names: list[str], pairs: Counter
) -> ConfusionMatrix:
    """All classes, or those of the most frequent confusions, in the order of the labels."""
    whole = len(names) <= WHOLE_MATRIX
    chosen: dict[int, None] = {}
    for pair, _ in pairs.most_common():
        if len(chosen.keys() | set(pair)) <= BLOCK:
            chosen |= dict.fromkeys(pair)
    shown = range(len(names)) if whole else sorted(chosen)
    counts = Counter(zip(label.tolist(), predicted.tolist(), strict=True))
    rows = tuple(tuple(counts[a, b] for b in shown) for a in shown)
    return ConfusionMatrix(tuple(names[c] for c in shown), rows, whole)
