"""Questions on images: the task, its candidate answers as logit columns, and its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dassl.utils import UserError

from .pairs import ItemSpace

PLACE = "{question}"


@dataclass(frozen=True)
class QuestionTask:
    """Images with a question each, and the candidate answers.

    Args:
        name: subject of the questions, for task prompts.
        answers: C candidate answers; they are the logit columns.
        questions: Q texts.
        question: (N,) index into ``questions`` of each item.
        target: (N,) column of each item's most frequent answer; -1 if it is no candidate.
        votes: (N,) number of annotators of each item that gave a candidate, by its column.
        people: (N,) number of annotators of each item.
        template: a sentence that holds ``{question}`` and ends with ``{}``, the answer.
        group: see :class:`~dassl.data.tasks.Task`.

    Raises:
        UserError: no answers, two alike, or a template of another form.
    """

    name: str
    answers: tuple[str, ...]
    questions: tuple[str, ...]
    question: tuple[int, ...]
    target: tuple[int, ...]
    votes: tuple[Mapping[int, int], ...]
    people: tuple[int, ...]
    template: str = "question: {question} answer: {}"
    group: str = ""
    templates = ("{}",)
    metric = "vqa_accuracy"
    name_in_prompts = ""

    def __post_init__(self):
        if not self.answers or len(set(self.answers)) < len(self.answers):
            raise UserError(f"{self.name!r} needs at least one answer, and no two alike")
        sizes = {len(x) for x in (self.question, self.target, self.votes, self.people)}
        if len(sizes) > 1:
            raise UserError(f"{self.name!r} has columns of unlike lengths: {sorted(sizes)}")
        words, place, rest = self.template.partition("{}")
        bare = words.replace(PLACE, "", 1)
        if not place or rest.strip(" .") or PLACE not in words or set(bare) & set("{}"):
            raise UserError(
                f"DATASET.TEMPLATE of questions must hold {PLACE} once and end with {{}}, where "
                f"the answer goes, such as 'question: {PLACE} answer: {{}}'; got {self.template!r}"
            )

    @property
    def classnames(self) -> tuple[str, ...]:
        """The answers, as the columns of the logits."""
        return self.answers

    def before(self, question: str) -> str:
        """The prompt's words before the answer."""
        return self.template.partition("{}")[0].replace(PLACE, question).strip()


@dataclass(frozen=True)
class QuestionSpace(ItemSpace):
    """The answers of one :class:`QuestionTask` as logit columns; labels are numbers of items."""

    evaluator = "Answers"
    content = "questions on images"
    unit = "questions"

    def task_words(self, t: int) -> dict[str, str | tuple[str, ...]]:
        """The words of the task, with the template of its questions."""
        return {**super().task_words(t), "templates": (self.tasks[t].template,)}

    def label_content(self, item) -> list:
        """Question, most frequent answer and number of people by answer of an item."""
        task = self.tasks[0]
        answers = sorted((task.answers[c], n) for c, n in task.votes[item.label].items())
        question = task.questions[task.question[item.label]]
        return [question, item.classname, answers, task.people[item.label]]

    @cached_property
    def _targets(self) -> dict[torch.device, Tensor]:
        return {}

    def target(self, device: torch.device) -> Tensor:
        """Column of each item's most frequent answer, or -1: (N,); moved to a device once."""
        if device not in self._targets:
            self._targets[device] = torch.tensor(self.tasks[0].target).to(device)
        return self._targets[device]

    def question_ids(self, label: Tensor) -> Tensor:
        """Question (B,) of each item of a batch, on the CPU; labels on a GPU would synchronize."""
        return torch.tensor([self.tasks[0].question[item] for item in label.tolist()])

    def cross_entropy(
        self,
        logits: Tensor,
        label: Tensor,
        task: Tensor,
        class_mask: Tensor | None = None,
        label_smoothing: float = 0.0,
        weigh: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Mean cross-entropy of the most frequent answers of a batch, over all candidates.

        Args:
            logits: (B, C).
            label: (B,), numbers of items whose answers are candidates.
        """
        target = self.target(label.device)[label]
        return super().cross_entropy(logits, target, task, class_mask, label_smoothing, weigh)
