"""DigitLabels: three kinds of label for the images of Digits7, no download.

Which digit it is, in the order of the numbers (ordinal), which shapes it is drawn with
(multi-label), and whether it is odd or even (one class per image).
"""

from __future__ import annotations

from dataclasses import replace

from dassl.data import DATASET_REGISTRY, Task
from dassl.data.label_kinds import Ordinal

from ._core.base import TaskGroup
from ._core.digit_tasks import DigitTask, OddOrEven
from ._core.digits import WORDS
from ._core.label_columns import multi_label
from ._core.splits import Split

SHAPES = {  # the digits that are printed with each
    "a loop": {0, 4, 6, 8, 9},
    "a straight line": {1, 2, 4, 5, 7},
    "a curve": {0, 2, 3, 5, 6, 8, 9},
}


class DigitValue(DigitTask):
    """Which digit it is; the classes have the order of the numbers."""

    task_name = "value of the digit"
    templates = ("a photo of the digit {}.",)
    classnames = WORDS
    answers = tuple(range(10))

    def make_tasks(self, split: Split) -> list[Task]:
        kind = Ordinal(self.cfg.OPTIM.ORDINAL_WEIGHT)
        return [replace(task, kind=kind) for task in super().make_tasks(split)]


class DigitShapes(DigitTask):
    """Which of three shapes the printed digit has; a digit has one or two of them."""

    task_name = "shapes of the digit"
    templates = ("a photo of a digit with {}.",)
    classnames = tuple(SHAPES)
    answers = tuple(range(10))  # a label is the set of shapes of a digit

    def make_tasks(self, split: Split) -> list[Task]:
        digits = SHAPES.values()
        sets = (tuple(c for c, having in enumerate(digits) if i in having) for i in range(10))
        kind = multi_label(tuple(sets), self.cfg.OPTIM)
        return [replace(task, kind=kind) for task in super().make_tasks(split)]


@DATASET_REGISTRY.register()
class DigitLabels(TaskGroup):
    """Three kinds of label for handwritten digits; the images come with scikit-learn."""

    members = (DigitValue, DigitShapes, OddOrEven)
