"""Questions in front of the answers in a prompt, for any method."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clip import TextEncoder
from clip.text import Prompts, index_rows, to_device
from dassl.data import TaskSpace
from dassl.utils import UserError
from image_text import QuestionSpace

from .encoder_wrapper import EncoderWrapper
from .prompt_learner import PromptLearner
from .words import cut_words, encoder_of

if TYPE_CHECKING:
    from .prompted_clip import PromptedCLIP


def questions_of(space: TaskSpace, text: TextEncoder, prompter: nn.Module) -> Questions | None:
    """The questions of a space, after checking that prompts leave room; None if it has none."""
    if not isinstance(space, QuestionSpace):
        return None
    parts = [part for part in prompter.modules() if isinstance(part, PromptLearner)]
    questions = Questions(space, text, follow=any(part.left for part in parts))
    for part in parts:
        used = part.start.shape[1] + part.left + part.order.shape[1]
        questions.check_room(text.context_length - used)
    return questions


class Questions:
    """The questions of a space as token embeddings, and logits for images with a question each.

    A question that is too long is cut at a word; the log counts them.

    Args:
        follow: whether a context stands in front of the questions.
    """

    def __init__(self, space: QuestionSpace, text: TextEncoder, follow: bool):
        self.task, self.text, self.follow = space.tasks[0], text, follow
        self._tokens = [self._tokenize(question) for question in self.task.questions]
        self._checked_rooms: set[int] = set()

    def show(self) -> list[str]:
        """One line with the first question as it stands in a prompt."""
        first, count = self.task.before(self.task.questions[0]), len(self.task.questions)
        return [f"in front of each answer: {first} (the first of {count:,} questions)"]

    def logits(
        self,
        model: PromptedCLIP,
        x: torch.Tensor,
        question_ids: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B, C) of normalised image features (B, e), each with its question.

        The prompts of a question are encoded once for all images of the batch that have it. Where
        memory is short (MODEL.TEXT_CHUNK), the activations of a question, text features included,
        are dropped before the next and recomputed in the backward pass.

        Args:
            question_ids: (B,), on the CPU.
        """
        ids, inverse = question_ids.unique(return_inverse=True)
        recompute = model.text.chunked and len(ids) > 1 and torch.is_grad_enabled()
        parts = []
        for i, question_id in enumerate(ids.tolist()):
            text = QuestionEncoder(model.text_tower, self, question_id)
            images = index_rows(x, (inverse == i).nonzero()[:, 0])
            if recompute:
                flags = {"use_reentrant": False, "preserve_rng_state": False}
                parts.append(checkpoint(_score, model, images, class_mask, text, **flags))
            else:
                parts.append(_score(model, images, class_mask, text))
        return index_rows(torch.cat(parts), inverse.argsort(stable=True).argsort())

    def embed(self, question_id: int, room: int) -> torch.Tensor:
        """Token embeddings (L, d) of a question in its template, L at most ``room``."""
        self.check_room(room)
        tokens = self._tokens[question_id]
        if len(tokens) > room:
            tokens = self._tokenize(self._cut(self.task.questions[question_id], room))
        ids = torch.tensor(tokens, dtype=torch.long)  # explicit, since the list may be empty
        with torch.no_grad():
            return self.text.embed(to_device(ids, self.text.device))

    def _tokenize(self, question: str) -> list[int]:
        return encoder_of(self.text, self.follow)(self.task.before(question))

    def _cut(self, question: str, room: int) -> str:
        def fits(words: str) -> bool:
            return len(self._tokenize(words)) <= room

        short = cut_words(question, fits)
        return short if fits(short) else ""

    def check_room(self, room: int) -> None:
        """Refuse prompts that leave no room, in tokens, for a question; log how many are cut."""
        if room in self._checked_rooms:
            return
        if (template := len(self._tokenize(""))) > room:
            raise UserError(
                f"the context and the longest answer leave {max(room, 0)} of the text tower's "
                f"{self.text.context_length} tokens for the question, but DATASET.TEMPLATE alone "
                f"takes {template}: use fewer context tokens, or fewer DATASET.QUESTIONS.CANDIDATES"
            )
        self._checked_rooms.add(room)
        if count := sum(len(tokens) > room for tokens in self._tokens):
            print(
                f"{count:,} of {len(self._tokens):,} questions were too long for the text tower "
                "and are cut"
            )


class QuestionEncoder(EncoderWrapper):
    """Inserts a question between the prefix and the suffix of every prompt."""

    def __init__(self, encoder: TextEncoder, questions: Questions, question_id: int):
        super().__init__(encoder)
        self.questions, self.question_id = questions, question_id

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e), not normalised."""
        used = prompts.prefix.shape[1] + prompts.suffix.shape[1]
        words = self.questions.embed(self.question_id, self.context_length - used)  # (L, d)
        words = words.to(prompts.prefix.dtype).expand(len(prompts.prefix), -1, -1)
        return self.encoder.encode(replace(prompts, prefix=torch.cat([prompts.prefix, words], 1)))


def _score(
    model: PromptedCLIP, x: torch.Tensor, class_mask: torch.Tensor | None, text: TextEncoder
) -> torch.Tensor:
    return model.score(x, model.text_features(x, class_mask, text), class_mask)
