"""Local features of an image tower: one per image position, in the space of the texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import nn


def has_local(visual: nn.Module) -> bool:
    """Whether an image tower has a feature per image position."""
    if isinstance(visual, ModifiedResNet):
        return True
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.proj is not None
    )


def encode_local(visual: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Global features (B, e) and local ones (B, p, e) of images, from one pass of the tower.

    A ResNet has one per position of its last feature map: attention pooling with that position as
    the query, where the tower itself uses the mean of all (PLOT,
    https://arxiv.org/abs/2210.01253). A transformer has one per patch: the patch token after the
    final norm and the projection of the class token, for which it was not trained.

    Args:
        visual: a tower for which :func:`has_local` is true.
    """
    if isinstance(visual, ModifiedResNet):
        found = visual.forward_intermediates(images, indices=1)
        return found["image_features"], attention_map(visual.attnpool, found["image_intermediates"])
    found = visual.forward_intermediates(images, indices=1, output_fmt="NLC")
    return found["image_features"], visual.ln_post(found["image_intermediates"][0]) @ visual.proj


def attention_map(pool: nn.Module, maps: list[torch.Tensor]) -> torch.Tensor:
    """Attention-pooled features (B, h * w, e), one per position of the last map (B, c, h, w)."""
    positions = maps[-1].flatten(2).transpose(1, 2)  # (B, p, c)
    x = torch.cat([positions.mean(1, keepdim=True), positions], 1)
    x = x + pool.positional_embedding.to(x.dtype)  # (B, 1 + p, c)
    heads = (len(x), x.shape[1], pool.num_heads, -1)
    query, key, value = (
        proj(x).view(heads).transpose(1, 2) for proj in (pool.q_proj, pool.k_proj, pool.v_proj)
    )  # (B, heads, 1 + p, c / heads)
    pooled = F.scaled_dot_product_attention(query[:, :, 1:], key, value)
    return pool.c_proj(pooled.transpose(1, 2).flatten(2))
