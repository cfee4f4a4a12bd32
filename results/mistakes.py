"""Where a run goes wrong: its calibration, the classes it confuses, its most confident mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dassl.utils import read_json
from dassl.utils.calibration import calibration_measures

from .predictions import ImageResults, read_predictions
from .task_words import FILE as TASKS

SHOWN = 8  # confusions and mistakes per task


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of a run on the test images of one task.

    Args:
        ece: expected calibration error in percent, 15 bins of equal width
            (https://arxiv.org/abs/1706.04599).
        nll: mean negative log-likelihood of the right class, in nats.
        confusions: right class, predicted class, number of images; the most frequent first.
        confident: path, right class, predicted class, its probability; the most probable first.
    """

    task: str
    images: int
    wrong: int
    ece: float
    nll: float
    confusions: tuple[tuple[str, str, int], ...]
    confident: tuple[tuple[str, str, str, float], ...]


def find_mistakes(folder: Path) -> list[Mistakes]:
    """The mistakes of each task; empty for a run without ``predictions.npz``.

    Raises:
        UserError: a file of the run is broken.
    """
    found = read_predictions(folder)
    if found is None:
        return []
    known = read_json(folder / TASKS)["tasks"] if (folder / TASKS).exists() else []
    out = []
    for t in np.unique(found.task):
        names = known[t]["classnames"] if t < len(known) else []
        out.append(_of_task(found, int(t), known[t]["name"] if names else f"task {t}", names))
    return out


def _of_task(found: ImageResults, t: int, name: str, names: list[str]) -> Mistakes:
    def word(label: int) -> str:
        return names[label] if label < len(names) else f"class {label}"

    places = np.flatnonzero(found.task == t)
    label, predicted = found.label[places], found.classes[places, 0]
    probability = found.probabilities[places, 0].astype(np.float64)
    wrong = np.flatnonzero(label != predicted)
    counts = Counter(zip(label[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    sure = wrong[np.argsort(-probability[wrong], kind="stable")][:SHOWN]
    return Mistakes(
        task=name,
        images=len(places),
        wrong=len(wrong),
        **calibration_measures(probability, label == predicted, found.label_probability[places]),
        confusions=tuple((word(a), word(b), n) for (a, b), n in counts.most_common(SHOWN)),
        confident=tuple(
            (found.paths[places[i]], word(label[i]), word(predicted[i]), float(probability[i]))
            for i in sure
        ),
    )
