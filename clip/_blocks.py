"""open_clip's transformer blocks, whose tensor layout differs between its versions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ._errors import CLIPError


def causal_mask(length: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Additive attention mask (L, L): 0 on and below the diagonal, -inf above it."""
    return torch.full((length, length), float("-inf"), device=device, dtype=dtype).triu(1)


def is_batch_first(transformer: nn.Module) -> bool:
    """Whether the blocks of an open_clip transformer take (n, L, d) rather than (L, n, d).

    open_clip's versions differ. The wrong layout raises no error and lets prompts attend to each
    other.
    """
    fallback = getattr(transformer, "batch_first", False)  # before 2.26 there was only (L, n, d)
    return getattr(transformer.resblocks[0].attn, "batch_first", fallback)


def run_blocks(
    transformer: nn.Module,
    x: torch.Tensor,
    mask: torch.Tensor | None,
    deep: Mapping[int, torch.Tensor] | None = None,
    start: int = 0,
) -> torch.Tensor:
    """The residual attention blocks of ``transformer.resblocks`` over x (n, L, d).

    Args:
        mask: additive, (L, L) or (n * heads, L, L).
        deep: (n, m, d) by index of the block: what overwrites the tokens from position ``start``
            before that block.
    """
    batch_first, deep = is_batch_first(transformer), deep or {}
    if not batch_first:
        x = x.transpose(0, 1)
    for i, block in enumerate(transformer.resblocks):
        if i in deep:
            tokens = deep[i] if batch_first else deep[i].transpose(0, 1)
            x = overwrite(x, tokens, start, 1 if batch_first else 0)
        x = block(x, attn_mask=mask)
    return x if batch_first else x.transpose(0, 1)


def overwrite(x: torch.Tensor, tokens: torch.Tensor, start: int, dim: int = 1) -> torch.Tensor:
    """x with ``tokens`` in place of as many from ``start`` along ``dim``."""
    end = start + tokens.shape[dim]
    before, after = x.narrow(dim, 0, start), x.narrow(dim, end, x.shape[dim] - end)
    return torch.cat([before, tokens.to(x.dtype), after], dim)


def check_text_tower(text: nn.Module) -> bool:
    """Whether attention is causal; refuses a text tower that cannot take embeddings."""
    if not hasattr(getattr(text, "transformer", None), "resblocks"):
        raise CLIPError(
            f"text tower {type(text).__name__} has no open_clip blocks to run prompts in"
        )
    if getattr(text, "use_pad_mask", False):
        raise CLIPError("bidirectional text towers with a padding mask are not supported")
    if getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax")) == "none":
        raise CLIPError("text towers that give one feature per token are not supported")
    mask = getattr(text, "attn_mask", None)
    if mask is None:
        return False
    if not torch.equal(mask, causal_mask(len(mask), mask.device, mask.dtype)):
        raise CLIPError("text towers whose attention mask is not the causal one are not supported")
    return True
