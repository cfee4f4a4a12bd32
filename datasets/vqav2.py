"""VQAv2: questions on MSCOCO's photos of 2014, with ten answers each. https://visualqa.org"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dassl.data import DATASET_REGISTRY
from dassl.utils import UserError, read_json

from ._core.layout import find_folder
from ._core.questions import QAItem, QuestionDataset, normalize_answer

PHOTO_FOLDERS = {
    "train": "train2014",
    "val": "",
    "test": "val2014",
}  # the test answers are not public


@DATASET_REGISTRY.register()
class VQAv2(QuestionDataset):
    """Questions on photos: 443,757 of train2014 for training, 214,354 of val2014 for testing."""

    dataset_dir = "vqav2"
    task_name = "photos"
    split_name = "official"

    def read(self, cfg) -> tuple[Path, dict[str, list[QAItem]]]:
        """The image folder, and the questions of each part."""
        parts: dict[str, list[QAItem]] = {}
        for part, photos in PHOTO_FOLDERS.items():
            if not photos:
                parts[part] = []
                continue
            root = find_folder(cfg.DATASET.ROOT, self.dataset_dir, photos, type(self).__name__)
            parts[part] = read_part(
                root / f"v2_OpenEnded_mscoco_{photos}_questions.json",
                root / f"v2_mscoco_{photos}_annotations.json",
                photos,
            )
        return root, parts


def read_part(questions: Path, annotations: Path, photos: str) -> list[QAItem]:
    """Questions with their answers, in the order of the questions file.

    A question without answers is incomplete. Answers without question are left out and counted.

    Raises:
        UserError: files of another kind, or that do not belong together.
    """
    texts = read_questions(questions)
    answers = read_annotations(annotations)
    items = []
    for number, (image, text) in texts.items():
        about, answer, given = answers.get(number, (image, "", ()))
        if about != image:
            raise UserError(
                f"question {number} is on image {image} in {questions}, but on {about} in "
                f"{annotations}: they belong to different versions"
            )
        items.append(QAItem(f"{photos}/COCO_{photos}_{image:012d}.jpg", text, answer, given))
    if texts and not any(item.answers for item in items):
        raise UserError(
            f"{annotations} answers none of the {len(texts):,} questions of {questions}: they are "
            "not of one version or part"
        )
    if strays := len(answers.keys() - texts.keys()):
        print(f"{strays:,} answered questions of {annotations} are not in {questions.name}")
    return items


def read_questions(path: Path) -> dict[int, tuple[int, str]]:
    """Image and words of each question, by its number.

    ``{"questions": [{"question_id", "image_id", "question"}, ...]}``

    Raises:
        UserError: another layout; the message names file and entry.
    """
    found = {}
    for place, entry in enumerate(_list_of(path, "questions")):
        number, image = _number(entry, "question_id"), _number(entry, "image_id")
        text = entry.get("question") if isinstance(entry, dict) else None
        if number is None or image is None or not isinstance(text, str):
            raise UserError(
                f'{path}, question {place}: needs the numbers "question_id" and "image_id" and a '
                'text "question"'
            )
        if number in found:
            raise UserError(f"{path} holds question {number} twice")
        found[number] = image, " ".join(text.split())
    return found


def read_annotations(path: Path) -> dict[int, tuple[int, str, tuple[str, ...]]]:
    """Image, most frequent answer and all answers, by the number of the question.

    ``{"annotations": [{"question_id", "image_id", "multiple_choice_answer", "answers":
    [{"answer"}, ...]}, ...]}``

    Raises:
        UserError: another layout; the message names file and entry.
    """
    found = {}
    for place, entry in enumerate(_list_of(path, "annotations")):
        number, image = _number(entry, "question_id"), _number(entry, "image_id")
        fields = entry if isinstance(entry, dict) else {}
        answer, given = fields.get("multiple_choice_answer"), fields.get("answers")
        listed = given if isinstance(given, list) else [None]
        words = [one.get("answer") if isinstance(one, dict) else None for one in listed]
        texts = [answer, *words]
        if number is None or image is None or not all(isinstance(text, str) for text in texts):
            raise UserError(
                f'{path}, annotation {place}: needs the numbers "question_id" and "image_id", a '
                'text "multiple_choice_answer" and a list "answers" with a text "answer" each'
            )
        if number in found:
            raise UserError(f"{path} answers question {number} twice")
        found[number] = image, normalize_answer(answer), tuple(map(normalize_answer, words))
    return found


def _list_of(path: Path, key: str) -> list:
    content = read_json(path)
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(
            f'{path} is not one of VQAv2\'s files of {key}: it must hold {{"{key}": [...]}}'
        )
    return entries


def _number(entry: Any, key: str) -> int | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if type(value) is int and value >= 0 else None
