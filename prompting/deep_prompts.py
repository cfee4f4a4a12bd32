"""Learned prompts before the blocks of both towers, below the first one too."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from clip import CLIP, TextEncoder
from clip.text import Prompts
from dassl.config import CfgNode
from dassl.data import TaskSpace
from dassl.utils import UserError, counted

from .prompt_learner import INIT_STD, PromptLearner, chunk_names, scatter_rows
from .prompter import Features, Prompter
from .words import embed_words


class DeepContext(nn.Module):
    """A learned context for each of the first J text blocks, shared by all class names.

    Prompts are ``[SOS] v_1 ... v_m words name . [EOT]``. If m is at most the number of words of
    ``ctx_init``, the first m start the context and the others follow it, fixed; otherwise the
    context starts at random and there are no words. Contexts of later blocks start at random.

    Args:
        n_ctx: m.
        depth: J; before block i < J the hidden states of the context are overwritten.
    """

    words: torch.Tensor
    deep: nn.Parameter | None

    def __init__(
        self, names: list[str], text: TextEncoder, n_ctx: int, ctx_init: str, depth: int
    ) -> None:
        super().__init__()
        words = embed_words(ctx_init, text) if ctx_init else torch.empty(0, text.width)
        if n_ctx > len(words):
            words = INIT_STD * torch.randn(n_ctx, text.width)
        self.ctx = nn.Parameter(words[:n_ctx].clone())  # (m, d)
        self.register_buffer("words", words[n_ctx:], persistent=False)
        self.deep = None
        if depth > 1:
            self.deep = nn.Parameter(INIT_STD * torch.randn(depth - 1, n_ctx, text.width))
        self.names = PromptLearner(names, text, n_ctx=len(words), learn=False)

    def layers(self) -> list[torch.Tensor]:
        """The J contexts (m, d)."""
        return [self.ctx, *(() if self.deep is None else self.deep)]

    def forward(self, class_mask: torch.Tensor | None = None) -> Prompts:
        """The prompts of all names, or of those that ``class_mask`` chooses."""
        prompts = self.names(torch.cat([self.ctx, self.words]), class_mask=class_mask)
        deep = {i: ctx[None] for i, ctx in enumerate(self.layers()) if i}
        return replace(prompts, deep=deep)

    def encode(self, text: TextEncoder, class_mask: torch.Tensor | None) -> torch.Tensor:
        """Text features (C, e), zero where ``class_mask`` drops a class."""
        parts = chunk_names(self.names, class_mask)
        return scatter_rows(torch.cat([text.encode(self(part)) for part in parts]), class_mask)


class PromptedImages(Prompter):
    """A prompter that learns in the image tower, through prompt tokens beside the patches."""

    def image_tokens(self, clip: CLIP, task: torch.Tensor | None = None) -> dict[int, torch.Tensor]:
        """Tokens (m, V) or (B, m, V) by index of the image block; {} leaves the tower as it is.

        Args:
            task: (B,) task of each image, if known.
        """
        raise NotImplementedError

    def encode_image(
        self,
        clip: CLIP,
        images: torch.Tensor,
        outputs: frozenset[str],
        task: torch.Tensor | None = None,
    ) -> Features:
        tokens = self.image_tokens(clip, task)
        if not tokens:
            return super().encode_image(clip, images, outputs, task)

        def encode(count: int, recompute: bool) -> torch.Tensor:
            own = {i: x[:count] if x.dim() == 3 else x for i, x in tokens.items()}
            return clip.encode_prompted_image(images[:count], own, recompute)

        count = tokens[0].shape[-2]
        self.announce_memory(clip, encode, images, f"with {counted(count, 'prompt token')} each")
        # not encode(len(images), ...): slicing would fix the batch size of an exported model
        return {"global": clip.encode_prompted_image(images, tokens, self.recompute_images)}


class IndependentPrompter(PromptedImages):
    """Contexts of text blocks and tokens of image blocks, learned independently.

    ``options`` has N_CTX_TEXT, CTX_INIT, PROMPT_DEPTH_TEXT, N_CTX_VISION, PROMPT_DEPTH_VISION.
    """

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder, clip: CLIP):
        super().__init__()
        count, depth = options.N_CTX_VISION, options.PROMPT_DEPTH_VISION
        self.contexts = DeepContext(
            space.classnames, text, options.N_CTX_TEXT, options.CTX_INIT, options.PROMPT_DEPTH_TEXT
        )
        self.tokens = make_tokens(clip, count, depth) if depth else None

    def image_tokens(self, clip: CLIP, task: torch.Tensor | None = None) -> dict[int, torch.Tensor]:
        return {} if self.tokens is None else dict(enumerate(self.tokens))

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e)."""
        return self.contexts.encode(text, class_mask)


def make_tokens(clip: CLIP, count: int, depth: int) -> nn.Parameter:
    """Image tokens (J, m, V), normally distributed."""
    return nn.Parameter(INIT_STD * torch.randn(depth, count, clip.image_width))


def check_depth(key: str, depth: int, layers: int) -> None:
    """Refuse prompts before more blocks than a tower has.

    Args:
        key: the configuration key of ``depth``.
    """
    if depth > layers:
        raise UserError(
            f"TRAINER.{key} is {depth}, but the tower of this backbone has {layers} blocks; set it "
            f"to {layers} or less"
        )
