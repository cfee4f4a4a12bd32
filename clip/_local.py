"""Local features of an image tower: what it says of each place, in the joint space of its texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import nn


def has_local(visual: nn.Module) -> bool:
    """Whether an image tower has a feature for each of its places."""
    if isinstance(visual, ModifiedResNet):
        return True
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.proj is not None
    )


def encode_places(visual: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Global features (B, e) and local ones (B, p, e) of images, from one pass of the tower.

    A ResNet's places are those of its last map: attention pooling is done from each of them in
    turn, where the tower itself pools only from their mean (PLOT,
    https://arxiv.org/abs/2210.01253). A transformer's are its patches: their tokens go through the
    final norm and the projection that the class token goes through, for which they were not
    trained.

    Args:
        visual: a tower that :func:`has_local` is true of.
    """
    if isinstance(visual, ModifiedResNet):
        found = visual.forward_intermediates(images, indices=1)
        return found["image_features"], attention_map(visual.attnpool, found["image_intermediates"])
    found = visual.forward_intermediates(images, indices=1, output_fmt="NLC")
    return found["image_features"], visual.ln_post(found["image_intermediates"][0]) @ visual.proj


def attention_map(pool: nn.Module, maps: list[torch.Tensor]) -> torch.Tensor:
    """Pooled features (B, h * w, e) as seen from each place of the last map (B, c, h, w)."""
    places = maps[-1].flatten(2).transpose(1, 2)  # (B, p, c)
    x = torch.cat([places.mean(1, keepdim=True), places], 1)
    x = x + pool.positional_embedding.to(x.dtype)  # (B, 1 + p, c)
    heads = (len(x), x.shape[1], pool.num_heads, -1)
    query, key, value = (
        proj(x).view(heads).transpose(1, 2) for proj in (pool.q_proj, pool.k_proj, pool.v_proj)
    )  # (B, heads, 1 + p, c / heads)
    seen = F.scaled_dot_product_attention(query[:, :, 1:], key, value)
    return pool.c_proj(seen.transpose(1, 2).flatten(2))
