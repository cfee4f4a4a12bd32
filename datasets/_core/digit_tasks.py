"""Seven questions about handwritten digits, for Digits7 and PartlyLabelledDigits."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from dassl.data import Datum
from dassl.utils import UserError

from .base import FewShotDataset
from .digits import WORDS, digit_folder, divided_digits
from .splits import Split


def refuse_other_splits(name: str, choice: str) -> None:
    """Refuse a ``DATASET.SPLIT`` that a dataset of digits does not have.

    Raises:
        UserError: it is neither auto nor own.
    """
    if choice not in ("auto", "own"):
        raise UserError(f"DATASET.SPLIT is {choice!r}, but {name} has one split: take auto or own")


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
        refuse_other_splits(self.cfg.DATASET.NAME, choice)
        parts = _labelled(self.root, self.answers)
        return Split([self.classnames], *map(list, parts)), "own"


@lru_cache(maxsize=16)  # a sweep builds the same tasks for every run
def _labelled(root: Path, answers: tuple[int, ...]) -> tuple[tuple[Datum, ...], ...]:
    """The images for train, val and test, labelled with the answer for their digit."""
    return tuple(
        tuple(Datum(image, answers[digit]) for image, digit in part)
        for part in divided_digits(root)
    )


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


QUESTIONS = (
    DigitIdentity,
    OddOrEven,
    NumberOfLoops,
    NumberSize,
    KindOfStrokes,
    PrimeOrNot,
    MultipleOfThree,
)
