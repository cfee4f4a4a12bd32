"""Digits7: seven questions about handwritten digits, for demonstrations and tests offline.

The images are scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test
set: 1,797 of 8 x 8 pixels in 17 grey levels. https://archive.ics.uci.edu/dataset/80
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

from dassl.data import DATASET_REGISTRY, Datum
from dassl.utils import UserError, read_json

from ._core.base import FewShotDataset, TaskGroup
from ._core.digits import N_TRAIN, N_VAL, WORDS, digit_folder
from ._core.splits import Split


class DigitTask(FewShotDataset):
    """One question about a digit.

    Attributes:
        answers: the class of each digit, an index into ``classnames``.
    """

    classnames: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()
    templates = ("a photo of {}.",)
    group = "trained words"

    def __init_subclass__(cls):
        cls.num_columns = len(cls.classnames)

    def find_root(self, cfg) -> Path:
        """The cache folder; ``cfg.DATASET.ROOT`` is not used."""
        return digit_folder()

    def load_split(self, choice: str) -> tuple[Split, str]:
        """The only split, the same for all questions."""
        if choice not in ("auto", "own"):
            raise UserError(
                f"DATASET.SPLIT is {choice!r}, but Digits7 has one split: take auto or own"
            )
        items = _shuffled(tuple(read_json(self.root / "digits.json")), self.answers)
        parts = items[:N_TRAIN], items[N_TRAIN : N_TRAIN + N_VAL], items[N_TRAIN + N_VAL :]
        return Split([self.classnames], *map(list, parts)), "own"


@lru_cache(maxsize=16)  # a sweep builds the same tasks for every run
def _shuffled(digits: tuple[int, ...], answers: tuple[int, ...]) -> tuple[Datum, ...]:
    """The images in the order of the split, labelled with the answer for their digit."""
    order = list(range(len(digits)))
    random.Random(0).shuffle(order)
    return tuple(Datum(f"{i:04d}.png", answers[digits[i]]) for i in order)


class DigitIdentity(DigitTask):
    """Which digit it is."""

    task_name = "digit identity"
    templates = ("a photo of the digit {}.",)
    classnames = WORDS
    answers = tuple(range(10))


class OddOrEven(DigitTask):
    """Whether it is odd or even."""

    task_name = "odd or even"
    classnames = ("even", "odd")
    answers = tuple(i % 2 for i in range(10))


class NumberOfLoops(DigitTask):
    """How many closed loops it is drawn with; a four counts as one, however it is written."""

    task_name = "number of loops"
    classnames = ("no loops", "one loop", "two loops")
    answers = (1, 0, 0, 0, 1, 0, 1, 0, 2, 1)


class NumberSize(DigitTask):
    """Whether it is less than five."""

    task_name = "size of the number"
    classnames = ("less than five", "at least five")
    answers = tuple(int(i >= 5) for i in range(10))


class KindOfStrokes(DigitTask):
    """Whether it is printed with curves, straight lines or both."""

    task_name = "kind of strokes"
    classnames = ("curved", "straight", "both")
    answers = (0, 1, 2, 0, 1, 2, 0, 1, 0, 0)


class PrimeOrNot(DigitTask):
    """Whether it is prime: words that the tiny CLIP was not trained on."""

    task_name = "prime or not"
    group = "unseen words"
    classnames = ("prime", "not prime")
    answers = tuple(int(i not in {2, 3, 5, 7}) for i in range(10))


class MultipleOfThree(DigitTask):
    """Whether three divides it: words that the tiny CLIP was not trained on."""

    task_name = "multiple of three"
    group = "unseen words"
    classnames = ("multiple of three", "not a multiple of three")
    answers = tuple(int(i % 3 != 0) for i in range(10))


@DATASET_REGISTRY.register()
class Digits7(TaskGroup):
    """Seven questions about handwritten digits; the images come with scikit-learn.

    All tasks ask about the same images, and each draws its own shots.
    """

    members = (
        DigitIdentity,
        OddOrEven,
        NumberOfLoops,
        NumberSize,
        KindOfStrokes,
        PrimeOrNot,
        MultipleOfThree,
    )
