"""Meta-Nets and text passes of methods whose prompts depend on the image."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clip import TextEncoder, without_graphs

from .prompt_learner import PromptLearner, chunk_names

BOTTLENECK = 16  # width of the image feature / width of a Meta-Net's hidden layer


def image_net(in_dim: int, out_dim: int, hidden: int = 0) -> nn.Sequential:
    """A Meta-Net, which maps image features (B, in_dim) to (B, out_dim): linear, ReLU, linear.

    Source: https://arxiv.org/abs/2203.05557, section 3.2. The layers have the names of its code.

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
    text: TextEncoder,
    prompts: PromptLearner,
    contexts: torch.Tensor,
    class_mask: torch.Tensor | None = None,
    chunk: int = 0,
    inserted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Text features (B, k, e) of k names in every image's context (B, m, d).

    Args:
        class_mask: (C,) the k names; None all.
        chunk: images whose prompts are in memory at once; their text passes are recomputed in the
            backward pass. 0: all images, without recomputing.
        inserted: (p, d) embedded words in front of every name.
    """
    if not chunk or len(contexts) <= chunk:
        return _encode(text, prompts, contexts, class_mask, inserted)
    parts = [
        checkpoint(
            *(_encode_again, text, prompts, part, class_mask, inserted),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for part in contexts.split(chunk)
    ]
    return torch.cat(parts)


def _encode_again(*args):
    with without_graphs():
        return _encode(*args)


def _encode(text, prompts, contexts, class_mask, inserted):
    features = []
    for part in chunk_names(prompts, class_mask, len(contexts)):
        rows = text.encode(prompts(contexts, class_mask=part, all_pairs=True, inserted=inserted))
        features.append(rows.unflatten(0, (len(contexts), -1)))  # (b, names of the part, e)
    return torch.cat(features, dim=1)
