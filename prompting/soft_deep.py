"""SoftCPT in depth: prompts of several blocks of both towers from the name of a task.

This project's own. https://arxiv.org/abs/2208.13474 makes the context of the first text block from
the task's feature; https://arxiv.org/abs/2210.03117 couples image tokens to contexts of one task.
"""

from __future__ import annotations

import torch
from torch import nn

from clip import CLIP, TextEncoder
from clip.text import index_rows
from dassl.config import CfgNode
from dassl.data import TaskSpace

from .deep_prompts import PromptedImages
from .meta_net import Linear
from .prompt_learner import INIT_STD
from .soft_prompter import SoftPrompter


class LowRank(Linear):
    """A linear meta network that makes ``rank`` numbers per token, which one matrix maps to it."""

    def __init__(self, feature_dim: int, n_ctx: int, ctx_dim: int, with_classes: bool, rank: int):
        super().__init__(feature_dim, n_ctx, rank, with_classes, 1)
        self.up = nn.Parameter(torch.randn(rank, ctx_dim) / rank**0.5)

    def forward(self, task: torch.Tensor, cls: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(task, cls) @ self.up


class DeepSoftPrompter(PromptedImages, SoftPrompter):
    """SoftCPT's prompts, and from the same features r_t (and s_tc) those of later blocks:

        S_i = W_i(r_t), 0 < i < J      (m, d)  overwrites the context before text block i
        Q_i = F_i(S_i), 0 <= i < J     (m, V)  tokens in image block i, with IMAGE_PROMPTS

    W_i are linear without a bias, F_i with one. RANK r > 0 writes W_i as A_i B with (r, d) shared
    by all blocks and tokens, and F_i as C D_i with C (d, r) shared.
    """

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder, clip: CLIP):
        super().__init__(options, space, text)
        self.depth, rank = options.DEPTH, options.RANK
        count, with_classes = (self.depth - 1) * self.names.n_ctx, self.classes is not None
        self.later = None
        if count and rank:
            self.later = LowRank(text.out_dim, count, text.width, with_classes, rank)
        elif count:
            self.later = Linear(text.out_dim, count, text.width, with_classes, 1)
        self.couplings = self.down = None
        if options.IMAGE_PROMPTS:
            if rank:
                self.down = nn.Parameter(INIT_STD * torch.randn(text.width, rank))
            width = rank or text.width
            layers = (nn.Linear(width, clip.image_width) for _ in range(self.depth))
            self.couplings = nn.ModuleList(layers)

    def deep_contexts(
        self, task: torch.Tensor, cls: torch.Tensor | None = None
    ) -> dict[int, torch.Tensor]:
        """Contexts (n, m, d) of the text blocks 1 ... J - 1."""
        if self.later is None:
            return {}
        made = self.later(task, cls).unflatten(1, (self.depth - 1, -1))  # (n, J - 1, m, d)
        return dict(enumerate(made.unbind(1), 1))

    def image_tokens(self, clip: CLIP, task: torch.Tensor | None = None) -> dict[int, torch.Tensor]:
        """Tokens (B, m, V) of the task of each image; (m, V) of a single task."""
        if self.couplings is None:
            return {}
        tokens = self.tokens_of_tasks(clip.text_tower)
        if self.n_tasks == 1:
            return {i: rows[0] for i, rows in tokens.items()}
        if task is None:
            raise ValueError("images of several tasks need the task of each image")
        return {i: index_rows(rows, task) for i, rows in tokens.items()}

    def tokens_of_tasks(self, text: TextEncoder) -> dict[int, torch.Tensor]:
        """Image tokens (T, m, V) of all tasks by index of the block."""
        features = self.meta_inputs(text)
        contexts = {0: self.meta(*features), **self.deep_contexts(*features)}
        if self.down is not None:
            contexts = {i: ctx @ self.down for i, ctx in contexts.items()}
        return {i: self.couplings[i](ctx) for i, ctx in contexts.items()}
