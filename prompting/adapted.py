"""Prompters that learn inside the frozen towers, through copies with exchanged modules."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from clip import CLIP, Prompts, TextEncoder
from clip.adapters import exchange
from clip.text import PROMPTS_AT_ONCE, TextTower, index_rows
from dassl.data import TaskSpace

from .prompt_learner import mask_to_indices, scatter_rows
from .prompter import Features, Prompter


class AdaptedPrompter(Prompter):
    """Text features of one hand-written template, and image features, from adapted towers.

    Args:
        space: its tasks have the template.
        text, visual: the modules to exchange in each tower, by path; without any it stays frozen.
    """

    text: TextTower
    visual: nn.Module
    prefix: torch.Tensor
    suffix: torch.Tensor
    fixed: torch.Tensor

    def __init__(
        self,
        space: TaskSpace,
        clip: CLIP,
        text: Mapping[str, nn.Module],
        visual: Mapping[str, nn.Module],
    ):
        super().__init__()
        self.adapts_text, self.adapts_visual = bool(text), bool(visual)
        # not registered: the state of a prompter is what it learns
        self.__dict__["text"] = clip.text_tower.with_modules(text)
        self.__dict__["visual"] = exchange(clip.visual, visual)
        self.phrases = [
            task.templates[0].format(name.replace("_", " "))
            for task in space.tasks
            for name in task.classnames
        ]
        self._embed(self.phrases, clip.text_tower)
        if not self.adapts_text:
            with torch.no_grad():
                self.register_buffer("fixed", self.encode(), persistent=False)  # (C, e)

    def _embed(self, phrases: list[str], text: TextTower) -> None:
        """Store the embedded phrases: the tokens that all begin with, and the others of each."""
        tokens = text.tokenize(phrases)  # (C, L)
        eot = text.eot(tokens).cpu()  # (C,)
        same = (tokens == tokens[:1]).all(dim=0).cpu()  # (L,)
        shared = min(int(same.int().cumprod(0).sum()), int(eot.min()))
        with torch.no_grad():
            embedded = text.embed(tokens[:, : int(eot.max()) + 1])
        self.eot = eot - shared
        self.register_buffer("prefix", embedded[:1, :shared], persistent=False)  # (1, P, d)
        self.register_buffer("suffix", embedded[:, shared:], persistent=False)  # (C, S, d)

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e)."""
        return self.encode(class_mask) if self.adapts_text else self.fixed

    def encode(self, class_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Text features (C, e) by the adapted tower; those of masked classes are 0."""
        chosen = torch.arange(len(self.eot)) if class_mask is None else mask_to_indices(class_mask)
        found = []
        for part in chosen.split(PROMPTS_AT_ONCE):
            group = torch.zeros(len(part), dtype=torch.long)
            suffix = index_rows(self.suffix, part)
            found.append(self.text.encode(Prompts(self.prefix, suffix, group, self.eot[part])))
        return scatter_rows(torch.cat(found), class_mask)

    def encode_image(
        self,
        clip: CLIP,
        images: torch.Tensor,
        outputs: frozenset[str],
        task: torch.Tensor | None = None,
    ) -> Features:
        """Image features (B, e) by the adapted tower; gradients reach what it learns."""
        if not self.adapts_visual:
            return super().encode_image(clip, images, outputs, task)

        def encode(count: int, recompute: bool) -> torch.Tensor:
            self.visual.set_grad_checkpointing(recompute)
            return self.visual(images[:count])

        self.announce_memory(clip, encode, images, "in a tower that learns")
        self.visual.set_grad_checkpointing(self.recompute_images)
        return {"global": self.visual(images)}
