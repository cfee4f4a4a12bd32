"""Questions on images: candidate answers, drawing few questions, and building one task."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dassl.data import SPLITS, DatasetBase, Datum
from dassl.utils import UserError
from image_text import QuestionSpace, QuestionTask

from .pairs import check_one_collection, drop_unusable, sample_n

HOLD_OUT_SEED = 0  # the held-out questions are the same whatever the seed of the run


@dataclass(frozen=True)
class QAItem:
    """A question on an image with its human answers.

    Args:
        impath: path of the image below the image folder.
        answer: the most frequent answer.
        answers: one answer per annotator.
    """

    impath: str
    question: str
    answer: str
    answers: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether it has a question and at least one answer."""
        return bool(self.question and self.answers)


class QuestionDataset(DatasetBase):
    """Images with questions; a subclass reads them.

    The candidate answers are the DATASET.QUESTIONS.CANDIDATES most frequent ones of all training
    questions; training questions with another answer are left out, and counted in the log. Of the
    rest DATASET.NUM_SHOTS are drawn by the seed (-1: all).

    Attributes:
        task_name: what the questions are about.
    """

    asks_questions = True
    task_name = ""
    split_name = "own"

    def __init__(self, cfg):
        name, options = type(self).__name__, cfg.DATASET.QUESTIONS
        check_one_collection(cfg, name, QuestionSpace.content, own=("TASK_NAMES", "METRIC"))
        root, parts = self.read(cfg)
        self._full_test_size = len(parts["test"])
        parts = drop_unusable(parts, root, name, "questions", "words or no answers")
        answers = candidates(parts["train"], options.CANDIDATES)
        if options.NUM_VAL:
            parts["train"], parts["val"] = hold_out(parts["train"], options.NUM_VAL, name)
        parts["train"] = with_candidates(parts["train"], answers, name)
        rng = random.Random(cfg.SEED)
        parts["train"] = sample_n(cfg, parts["train"], rng, f"training questions of {name}")
        if options.NUM_TEST >= 0:
            if len(parts["test"]) < options.NUM_TEST:
                raise UserError(
                    f"DATASET.QUESTIONS.NUM_TEST asks for {options.NUM_TEST} test questions of "
                    f"{name}, but there are {len(parts['test'])}"
                )
            parts["test"] = parts["test"][len(parts["test"]) - options.NUM_TEST :]
        for part, remedy in (("train", "CANDIDATES"), ("test", "NUM_TEST")):
            if not parts[part]:
                raise UserError(
                    f"{name} has no question in its {part} part: look at its files in {root}, and "
                    f"at DATASET.QUESTIONS.{remedy}"
                )
        self._lay_out(root, parts, answers, cfg.DATASET.TEMPLATE)

    def read(self, cfg) -> tuple[Path, dict[str, list[QAItem]]]:
        """Hook: the folder of the images, and the questions of each part."""
        raise NotImplementedError(f"{type(self).__name__} must override read")

    def _lay_out(self, root: Path, parts: dict, answers: tuple[str, ...], template: str) -> None:
        items = [item for part in SPLITS for item in parts[part]]
        texts = tuple(dict.fromkeys(item.question for item in items))
        number = {text: i for i, text in enumerate(texts)}
        column = {answer: i for i, answer in enumerate(answers)}
        votes = [Counter(column[a] for a in item.answers if a in column) for item in items]
        own = {"template": template} if template else {}
        task = QuestionTask(
            self.task_name,
            answers,
            questions=texts,
            question=tuple(number[item.question] for item in items),
            target=tuple(column.get(item.answer, -1) for item in items),
            votes=tuple(votes),
            people=tuple(len(item.answers) for item in items),
            **own,
        )
        data = [Datum(str(root / x.impath), i, 0, x.answer) for i, x in enumerate(items)]
        first, second = len(parts["train"]), len(parts["train"]) + len(parts["val"])
        super().__init__(
            train_x=data[:first],
            val=data[first:second],
            test=data[second:],
            space=QuestionSpace((task,)),
            split=self.split_name,
            image_roots=[str(root)],
            test_split_size=self._full_test_size,
        )


def normalize_answer(text: str) -> str:
    """An answer in lower case with single spaces, so that spellings compare equal."""
    return " ".join(text.lower().split())


def candidates(items: Iterable[QAItem], count: int) -> tuple[str, ...]:
    """The ``count`` most frequent answers; equally frequent ones in alphabetical order."""
    found = Counter(item.answer for item in items if item.answer)
    return tuple(sorted(found, key=lambda answer: (-found[answer], answer))[:count])


def with_candidates(items: list[QAItem], answers: tuple[str, ...], name: str) -> list[QAItem]:
    """The items whose answer is a candidate; the log says how many others were dropped."""
    known = set(answers)
    kept = [item for item in items if item.answer in known]
    if left := len(items) - len(kept):
        print(
            f"{left:,} of {len(items):,} training questions of {name} have an answer that is none "
            f"of the {len(answers):,} candidates and are left out"
        )
    return kept


def hold_out(items: list[QAItem], count: int, name: str) -> tuple[list[QAItem], list[QAItem]]:
    """Split items into training items and ``count`` validation items that share no image.

    Raises:
        UserError: nothing would be left to train on.
    """
    images = list(dict.fromkeys(item.impath for item in items))
    random.Random(HOLD_OUT_SEED).shuffle(images)
    by_image = Counter(item.impath for item in items)
    chosen, questions = set(), 0
    for image in images:
        if questions >= count:
            break
        chosen.add(image)
        questions += by_image[image]
    train = [item for item in items if item.impath not in chosen]
    held = [item for item in items if item.impath in chosen][:count]
    if left := len(items) - len(train) - len(held):
        print(f"{left} questions on images held out for validation are left out")
    if not train or len(held) < count:
        raise UserError(
            f"DATASET.QUESTIONS.NUM_VAL {count} leaves nothing to train on: {name} has "
            f"{len(items)} training questions on {len(images)} images"
        )
    return train, held
