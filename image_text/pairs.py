"""Pairs of images and texts: the task, its logit columns and its contrastive loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.data.identity import SPLITS
from dassl.data.tasks import TaskSpace
from dassl.utils import UserError


class FreeText(list):
    """Texts that may be cut to the length of the text tower, which class names may not."""


@dataclass(frozen=True)
class PairTask:
    """One collection of images and of the texts that belong to them.

    Args:
        name: name of the collection.
        texts: C texts; they are the logit columns.
        image: (C,) number of the image that each text belongs to.
        part: (I,) split of each image: train (0), val (1) or test (2).
        group: see :class:`~dassl.data.tasks.Task`.

    Raises:
        UserError: no text, a text without image, an image without text, or a training image with
            more than one.
    """

    name: str
    texts: tuple[str, ...]
    image: tuple[int, ...]
    part: tuple[int, ...]
    group: str = ""
    templates = ("{}",)
    name_in_prompts = ""
    metric = "recall"

    def __post_init__(self):
        if not self.texts or len(self.texts) != len(self.image):
            raise UserError(
                f"{self.name!r} has {len(self.texts)} texts of {len(self.image)} images; it needs "
                "at least one text, and an image for each"
            )
        counts = torch.bincount(torch.tensor(self.image), minlength=len(self.part))
        if len(counts) > len(self.part) or not counts.all():
            raise UserError(f"{self.name!r} has texts without image or images without text")
        if bool((counts[torch.tensor(self.part) == 0] > 1).any()):
            raise UserError(f"{self.name!r} has a training image with several texts; draw one")

    @property
    def classnames(self) -> FreeText:
        """The texts, as the columns of the logits."""
        return FreeText(self.texts)


@dataclass(frozen=True)
class ItemSpace(TaskSpace):
    """A space of one task, whose labels are numbers of items, not classes."""

    def __post_init__(self):
        super().__post_init__()
        if len(self.tasks) > 1:
            raise UserError(f"{self.content} cannot be combined with other tasks in one suite")


@dataclass(frozen=True)
class PairSpace(ItemSpace):
    """The texts of one :class:`PairTask` as logit columns; labels are numbers of images."""

    evaluator = "Retrieval"
    content = "pairs of images and texts"

    @cached_property
    def classnames(self) -> FreeText:
        """Text of each column."""
        return self.tasks[0].classnames

    @cached_property
    def image(self) -> Tensor:
        """Image of each column: (C,)."""
        return torch.tensor(self.tasks[0].image)

    @cached_property
    def part(self) -> Tensor:
        """Split of each image, an index into SPLITS: (I,)."""
        return torch.tensor(self.tasks[0].part)

    @cached_property
    def first(self) -> Tensor:
        """First column of each image: (I,)."""
        columns = torch.arange(self.num_classes)
        start = torch.full((len(self.part),), self.num_classes)
        return start.scatter_reduce(0, self.image, columns, "amin")

    @cached_property
    def _texts_of(self) -> list[list[str]]:
        """Texts of each image."""
        texts: list[list[str]] = [[] for _ in self.tasks[0].part]
        for text, image in zip(self.tasks[0].texts, self.tasks[0].image, strict=True):
            texts[image].append(text)
        return texts

    def task_words(self, t: int) -> dict[str, str | tuple[str, ...]]:
        """The words of the task, without class names: texts belong to the items."""
        return {**super().task_words(t), "classnames": ()}

    def label_content(self, item) -> list[str]:
        """The texts of an image; its number depends on the draw."""
        return self._texts_of[item.label]

    def scored(self, batch: dict) -> Tensor:
        """Mask (C,) of the texts of a training batch."""
        mask = torch.zeros(self.num_classes, dtype=torch.bool)
        mask[self.first[batch["label"].cpu()]] = True
        return mask.to(batch["label"].device)

    def tested(self, split: str) -> Tensor:
        """Mask (C,) of the texts of a split's images."""
        return self.part[self.image] == SPLITS.index(split)

    def cross_entropy(
        self,
        logits: Tensor,
        label: Tensor,
        task: Tensor,
        class_mask: Tensor | None = None,
        label_smoothing: float = 0.0,
        weigh: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Symmetric contrastive loss: each image among the batch's texts, and the reverse.

        The mean of both cross-entropies, CLIP's loss. Computed in fp32.

        Args:
            logits: (B, C).
            label: (B,), numbers of training images.
            weigh: not used, as a loss of pairs is not a sum over images.
        """
        scores = logits[:, self.first.to(label.device)[label]]  # (B, B)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        own = torch.arange(len(label), device=label.device)
        both = [
            F.cross_entropy(s, own, label_smoothing=label_smoothing) for s in (scores, scores.T)
        ]
        return (both[0] + both[1]) / 2
