"""DigitQuestions: questions about handwritten digits, ten simulated annotators, no download.

The images are Digits7's. An annotator gives the right answer or, with probability 0.1, another
answer that fits the question.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from dassl.data import DATASET_REGISTRY
from dassl.utils import read_json

from ._core.digits import N_TRAIN, N_VAL, WORDS, digit_folder
from ._core.questions import QAItem, QuestionDataset

NUM_ANNOTATORS = 10
MISTAKE_RATE = 0.1  # of an annotator's answers
QUESTIONS_PER_IMAGE = 2

# Question and its answers for the digits 0 to 9; a four counts as having a loop.
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
    """Six questions about handwritten digits, two on each image, with ten answers each."""

    task_name = "handwritten digits"

    def read(self, cfg) -> tuple[Path, dict[str, list[QAItem]]]:
        """The image folder and the questions; ``cfg.DATASET.ROOT`` is not used."""
        folder = digit_folder()
        digits = read_json(folder / "digits.json")
        order = list(range(len(digits)))
        random.Random(0).shuffle(order)
        items = [
            simulate_answers(f"{i:04d}.png", question, digits[i])
            for i in order
            for question in random.Random(i).sample(list(QUESTIONS), QUESTIONS_PER_IMAGE)
        ]
        first, second = QUESTIONS_PER_IMAGE * N_TRAIN, QUESTIONS_PER_IMAGE * (N_TRAIN + N_VAL)
        parts = {"train": items[:first], "val": items[first:second], "test": items[second:]}
        return folder / "images", parts


def simulate_answers(impath: str, question: str, digit: int) -> QAItem:
    """A question with its simulated answers, which depend on image and question only."""
    rng, right = random.Random(f"{impath} {question}"), QUESTIONS[question][digit]
    others = sorted(set(QUESTIONS[question]) - {right})
    answers = [
        rng.choice(others) if rng.random() < MISTAKE_RATE else right for _ in range(NUM_ANNOTATORS)
    ]
    return QAItem(impath, question, Counter(answers).most_common(1)[0][0], tuple(answers))
