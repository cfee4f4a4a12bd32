"""PartlyLabelledDigits: seven questions about the same digits, half of the answers missing."""

from __future__ import annotations

import random
from pathlib import Path

from dassl.data import DATASET_REGISTRY, Datum, Task

from ._core.base import FewShotDataset
from ._core.digit_tasks import QUESTIONS, refuse_other_splits
from ._core.digits import digit_folder, divided_digits
from ._core.shots import draw_shared_shots
from ._core.splits import Split


@DATASET_REGISTRY.register()
class PartlyLabelledDigits(FewShotDataset):
    """The questions of Digits7 asked of the same images; half of the answers are missing.

    Every training and validation image has the answers to three or four questions drawn at
    random, the same for all seeds; test images have all seven. A few-shot draw takes
    ``DATASET.NUM_SHOTS`` labels of every class of every question, on as few images as
    :func:`~datasets._core.shots.draw_shared_shots` needs.
    """

    num_tasks = len(QUESTIONS)
    num_columns = sum(len(question.classnames) for question in QUESTIONS)
    draw_shots = staticmethod(draw_shared_shots)

    def find_root(self, cfg) -> Path:
        """The cache folder; ``cfg.DATASET.ROOT`` is not used."""
        return digit_folder()

    def load_split(self, choice: str) -> tuple[Split, str]:
        """The images of Digits7, in its division."""
        refuse_other_splits(type(self).__name__, choice)
        train, val, test = divided_digits(self.root)
        rng = random.Random(0)
        return Split(
            [question.classnames for question in QUESTIONS],
            _labelled(train, rng),
            _labelled(val, rng),
            [item for image, digit in test for item in _answers(image, digit)],
            tasknames=tuple(question.task_name for question in QUESTIONS),
        ), "own"

    def make_tasks(self, split: Split) -> list[Task]:
        """The questions, with their templates."""
        return [Task(q.task_name, q.classnames, q.templates) for q in QUESTIONS]


def _answers(image: str, digit: int) -> list[Datum]:
    """The labels of an image in all tasks."""
    return [Datum(image, q.answers[digit], task=t) for t, q in enumerate(QUESTIONS)]


def _labelled(images: list[tuple[str, int]], rng: random.Random) -> list[Datum]:
    """Three or four labels of each image, in turn."""
    items = []
    for i, (image, digit) in enumerate(images):
        items += rng.sample(_answers(image, digit), len(QUESTIONS) // 2 + i % 2)
    return items
