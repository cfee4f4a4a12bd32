"""What methods share whose prompts depend on the image."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clip.text import TextTower

from ._prompts import PromptLearner, in_parts, scatter_kept

BOTTLENECK = 16  # a Meta-Net's hidden layer is so many times narrower than the image feature


def image_net(in_dim: int, out_dim: int, hidden: int = 0) -> nn.Sequential:
    """A Meta-Net, linear, ReLU, linear: from image features (B, in_dim) to (B, out_dim).

    https://arxiv.org/abs/2203.05557, section 3.2; the layers have the names of its code.

    Args:
        hidden: width between the layers; 0: in_dim // 16, as published.
    """
    hidden = hidden or max(in_dim // BOTTLENECK, 1)
    layers = [
        ("linear1", nn.Linear(in_dim, hidden)),
        ("relu", nn.ReLU()),
        ("linear2", nn.Linear(hidden, out_dim)),
    ]
    return nn.Sequential(OrderedDict(layers))


def encode_per_image(
    text: TextTower,
    prompts: PromptLearner,
    contexts: torch.Tensor,
    keep: torch.Tensor | None = None,
    chunk: int = 0,
    before: torch.Tensor | None = None,
) -> torch.Tensor:
    """Text features (B, C, e) of every name in every image's context (B, m, d).

    Args:
        keep: (C,) the names to encode; the others' features are zero.
        chunk: images whose prompts are in memory at once; what the text tower computes for them
            is computed anew in the backward pass. 0: all, and nothing is computed twice.
        before: (p, d) embedded words in front of every name.
    """
    if not chunk or len(contexts) <= chunk:
        return _encode(text, prompts, contexts, keep, before)
    parts = [
        checkpoint(
            *(_encode, text, prompts, part, keep, before),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for part in contexts.split(chunk)
    ]
    return torch.cat(parts)


def _encode(text, prompts, contexts, keep, before):
    found = []
    for part in in_parts(prompts, keep, len(contexts)):
        rows = text.encode(prompts(contexts, keep=part, every=True, before=before))
        found.append(rows.unflatten(0, (len(contexts), -1)))  # (b, names of the part, e)
    return scatter_kept(torch.cat(found, dim=1), keep)
