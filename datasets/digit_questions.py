"""DigitQuestions: what can be asked about a handwritten digit, with answers of ten people.

The images are Digits7's. The people are simulated: each gives the right answer, or now and then
another one that fits the question.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from dassl.data import DATASET_REGISTRY
from dassl.utils import read_json

from ._core.digits import N_TRAIN, N_VAL, WORDS, digit_folder
from ._core.questions import QAItem, QuestionDataset

PEOPLE = 10
MISTAKES = 0.1  # of a person's answers
PER_IMAGE = 2  # questions

# What is asked, and the answer for the digits 0 .. 9; a four has a loop, however it is written.
QUESTIONS = {
    "what digit is it?": WORDS,
    "is it odd or even?": ("even", "odd") * 5,
    "is it even?": ("yes", "no") * 5,
    "how many loops does it have?": tuple(
        ("no loops", "one loop", "two loops")[n] for n in (1, 0, 0, 0, 1, 0, 1, 0, 2, 1)
    ),
    "is it less than five or not?": ("less than five",) * 5 + ("at least five",) * 5,
    "is it curved or straight?": tuple(
        ("curved", "straight", "both")[n] for n in (0, 1, 2, 0, 1, 2, 0, 1, 0, 0)
    ),
}


@DATASET_REGISTRY.register()
class DigitQuestions(QuestionDataset):
    """Six questions about handwritten digits, two on each image, answered by ten people each."""

    task_name = "handwritten digits"

    def read(self, cfg) -> tuple[Path, dict[str, list[QAItem]]]:
        """The folder and the questions; ``cfg.DATASET.ROOT`` is not looked at."""
        folder = digit_folder()
        digits = read_json(folder / "digits.json")
        order = list(range(len(digits)))
        random.Random(0).shuffle(order)
        items = [
            asked(f"{i:04d}.png", question, digits[i])
            for i in order
            for question in random.Random(i).sample(list(QUESTIONS), PER_IMAGE)
        ]
        first, second = PER_IMAGE * N_TRAIN, PER_IMAGE * (N_TRAIN + N_VAL)
        parts = {"train": items[:first], "val": items[first:second], "test": items[second:]}
        return folder / "images", parts


def asked(impath: str, question: str, digit: int) -> QAItem:
    """A question with what people answer; the same every time."""
    rng, right = random.Random(f"{impath} {question}"), QUESTIONS[question][digit]
    others = sorted(set(QUESTIONS[question]) - {right})
    given = [rng.choice(others) if rng.random() < MISTAKES else right for _ in range(PEOPLE)]
    return QAItem(impath, question, Counter(given).most_common(1)[0][0], tuple(given))
