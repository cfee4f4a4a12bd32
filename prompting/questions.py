"""Questions in front of the answers of a prompt, whatever the method makes of the rest."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clip.text import Prompts, TextTower, index_rows, to_device
from dassl.data import TaskSpace
from dassl.utils import UserError
from image_text import QuestionSpace

from .prompt_learner import PromptLearner
from .words import cut_words


def questions_of(space: TaskSpace, text: TextTower, prompter: nn.Module) -> Questions | None:
    """The questions of a space, after a look at the room in the prompts; None if it asks none."""
    if not isinstance(space, QuestionSpace):
        return None
    questions = Questions(space, text)
    for part in prompter.modules():
        if isinstance(part, PromptLearner):
            questions.look_at(
                text.context_length - part.start.shape[1] - part.left - part.order.shape[1]
            )
    return questions


class Questions:
    """The questions of a space as token embeddings, and logits of images that are asked them.

    A question that is too long is cut at a word, and counted in the log.

    Args:
        text: the frozen text tower.
    """

    def __init__(self, space: QuestionSpace, text: TextTower):
        self.task, self.text = space.tasks[0], text
        self._words = [self._tokens(question) for question in self.task.questions]
        self._rooms: set[int] = set()

    def show(self) -> list[str]:
        """The first question as it stands in a prompt, in a line."""
        first, count = self.task.before(self.task.questions[0]), len(self.task.questions)
        return [f"in front of each answer: {first} (the first of {count:,} questions)"]

    def logits(
        self,
        model,
        x: torch.Tensor,
        question_ids: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B, C) of normalised image features (B, e), each asked one question.

        A question's prompts are encoded for all images of the batch that are asked it. Where
        memory is short (MODEL.TEXT_CHUNK), what is computed for one question is dropped before the
        next, text features included, and computed anew in the backward pass.

        Args:
            model: a :class:`~prompting.prompted_clip.PromptedCLIP`.
            question_ids: (B,), on the CPU.
        """
        numbers, places = question_ids.unique(return_inverse=True)
        short = model.text.short and len(numbers) > 1 and torch.is_grad_enabled()
        parts = []
        for i, number in enumerate(numbers.tolist()):
            text = AskingTower(model.text_tower, self, number)
            own = index_rows(x, (places == i).nonzero()[:, 0])
            if short:
                again = {"use_reentrant": False, "preserve_rng_state": False}
                parts.append(checkpoint(_score, model, own, class_mask, text, **again))
            else:
                parts.append(_score(model, own, class_mask, text))
        return index_rows(torch.cat(parts), places.argsort(stable=True).argsort())

    def embed(self, number: int, room: int) -> torch.Tensor:
        """Token embeddings (L, d) of a question and the template around it, L at most ``room``."""
        self.look_at(room)
        tokens = self._words[number]
        if len(tokens) > room:
            tokens = self._tokens(self._cut(self.task.questions[number], room))
        ids = torch.tensor(tokens, dtype=torch.long)  # of no words, too
        with torch.no_grad():
            return self.text.embed(to_device(ids, self.text.device))

    def _tokens(self, question: str) -> list[int]:
        return self.text.tokenizer.encode(self.task.before(question))

    def _cut(self, question: str, room: int) -> str:
        def fits(words: str) -> bool:
            return len(self._tokens(words)) <= room

        short = cut_words(question, fits)
        return short if fits(short) else ""

    def look_at(self, room: int) -> None:
        """Refuse room, in tokens, for no question; count the questions that it cuts, once."""
        if room in self._rooms:
            return
        if (template := len(self._tokens(""))) > room:
            raise UserError(
                f"the context and the longest answer leave {max(room, 0)} of the text tower's "
                f"{self.text.context_length} tokens for the question, but DATASET.TEMPLATE alone "
                f"takes {template}: use fewer context tokens, or fewer DATASET.QUESTIONS.CANDIDATES"
            )
        self._rooms.add(room)
        if count := sum(len(tokens) > room for tokens in self._words):
            print(
                f"{count:,} of {len(self._words):,} questions were too long for the text tower "
                "and are cut"
            )


class AskingTower:
    """A text tower that puts a question between what a prompt begins with and its answer.

    It answers to the names of the tower that it stands in for.

    Args:
        number: of the question.
    """

    def __init__(self, tower: TextTower, questions: Questions, number: int):
        self.tower, self.questions, self.number = tower, questions, number

    def __getattr__(self, name: str):
        return getattr(self.tower, name)

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e), not normalised."""
        taken = prompts.prefix.shape[1] + prompts.suffix.shape[1]
        words = self.questions.embed(self.number, self.tower.context_length - taken)  # (L, d)
        words = words.to(prompts.prefix.dtype).expand(len(prompts.prefix), -1, -1)
        return self.tower.encode(replace(prompts, prefix=torch.cat([prompts.prefix, words], 1)))


def _score(model, x, class_mask, text):
    return model.score(x, model.text_features(x, class_mask, text))
