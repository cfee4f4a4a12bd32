"""Prompt tokens in a frozen vision transformer: appended to the patches, replaced block by block.

Gradients pass through the frozen blocks to the tokens. https://arxiv.org/abs/2203.12119
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.utils.checkpoint import checkpoint

from ._blocks import is_batch_first, overwrite
from ._errors import CLIPError
from ._packed import attend, is_standard, project_keys, project_queries, run_mlp


def blocks_of(visual: nn.Module, name: str = "this backbone") -> nn.ModuleList:
    """The blocks of an image tower that can take prompt tokens.

    Raises:
        CLIPError: it has no place for tokens, or one that is not supported.
    """
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None:
        return visual.transformer.resblocks
    if _is_timm_vit(visual):
        return visual.trunk.blocks
    kind = type(getattr(visual, "trunk", visual)).__name__
    raise CLIPError(
        f"the image tower of {name} ({kind}) cannot take prompt tokens; choose a backbone with a "
        "plain vision transformer (ViT-B/32, ViT-B/16, ViT-L/14 ...), or a method that leaves the "
        "image tower as it is"
    )


def _is_timm_vit(visual: nn.Module) -> bool:
    trunk = getattr(visual, "trunk", None)
    # by name: importing timm takes a second, and towers of its subclasses may differ
    return f"{type(trunk).__module__}.{type(trunk).__name__}" == (
        "timm.models.vision_transformer.VisionTransformer"
    )


def token_width(visual: nn.Module) -> int:
    """V, the width of the tokens of a vision transformer."""
    norm = visual.trunk.norm if hasattr(visual, "trunk") else visual.ln_post
    return norm.weight.shape[0]


def encode_with_tokens(
    visual: nn.Module,
    images: torch.Tensor,
    tokens: Mapping[int, torch.Tensor],
    recompute: bool = False,
) -> torch.Tensor:
    """Image features (B, e), not normalised, of images (B, 3, H, W) beside prompt tokens.

    Args:
        tokens: (m, V) or, different for each image, (B, m, V) by index of the block: ``tokens[0]``
            is appended behind the patches, without positions; before block i > 0 their states are
            replaced by ``tokens[i]``. Without ``tokens[0]`` the tower runs as it is.
        recompute: keep no activations inside a block but compute them again in the backward pass.
    """
    if 0 not in tokens:
        return visual(images)
    batch = {i: _per_image(x, images.shape[0]) for i, x in tokens.items()}
    if hasattr(visual, "trunk"):
        return _encode_timm(visual, images, batch, recompute)
    x = _embed(visual, images)  # (B, 1 + p, V)
    pools_class = getattr(visual, "pool_type", "tok") == "tok" and not getattr(
        visual, "global_average_pool", False
    )
    x = _append(x, visual.ln_pre(batch[0].to(x.dtype)))
    x = _run(visual.transformer.resblocks, x, batch, recompute, _runner(visual, pools_class))
    x = x[:, :1] if pools_class else x[:, 1 : x.shape[1] - batch[0].shape[1]]
    if getattr(visual, "final_ln_after_pool", False):
        x = visual.ln_post(x.mean(1))
    else:
        x = visual.ln_post(x).mean(1)  # of one token or of all patches
    return x if visual.proj is None else x @ visual.proj


def _per_image(tokens: torch.Tensor, images: int) -> torch.Tensor:
    return tokens.expand(images, -1, -1) if tokens.dim() == 2 else tokens


def _append(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, tokens.to(x.dtype)], 1)


def _embed(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Class token and patches (B, 1 + p, V) before the first block, as open_clip embeds them."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, p, V)
    first = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
    x = torch.cat([first, x], 1) + visual.positional_embedding.to(x.dtype)
    return visual.ln_pre(x)


def _encode_timm(
    visual: nn.Module, images: torch.Tensor, tokens: dict[int, torch.Tensor], recompute: bool
) -> torch.Tensor:
    trunk = visual.trunk
    x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(images)))
    own = x.shape[1]
    x = _append(x, trunk.norm_pre(tokens[0].to(x.dtype)))
    x = _run(trunk.blocks, x, tokens, recompute, lambda block, x, last: block(x))
    return visual.head(trunk.forward_head(trunk.norm(x[:, :own])))


def _run(
    blocks: nn.ModuleList,
    x: torch.Tensor,
    tokens: dict[int, torch.Tensor],
    recompute: bool,
    run: Callable[[nn.Module, torch.Tensor, bool], torch.Tensor],
) -> torch.Tensor:
    """All blocks over x (B, L, V), whose last tokens are the prompts."""
    start = x.shape[1] - tokens[0].shape[1]
    for i, block in enumerate(blocks):
        if i and i in tokens:
            x = overwrite(x, tokens[i], start)
        last = i + 1 == len(blocks)
        if recompute and torch.is_grad_enabled():
            x = checkpoint(run, block, x, last, use_reentrant=False, preserve_rng_state=False)
        else:
            x = run(block, x, last)
    return x


def _runner(visual: nn.Module, pools_class: bool) -> Callable:
    """One block of open_clip's over x (B, L, V); of the last, if only it is read, the first token.

    Standard blocks run with the fused MLP of :mod:`clip._packed`.
    """
    batch_first = is_batch_first(visual.transformer)

    def run(block: nn.Module, x: torch.Tensor, last: bool) -> torch.Tensor:
        if is_standard(block):
            return _block(block, x, 1 if last and pools_class else x.shape[1])
        return block(x) if batch_first else block(x.transpose(0, 1)).transpose(0, 1)

    return run


def _block(block: nn.Module, x: torch.Tensor, queries: int) -> torch.Tensor:
    """The first ``queries`` tokens (B, queries, V) after a standard residual attention block."""
    attn, y = block.attn, block.ln_1(x)
    kv, q = project_keys(attn, y), project_queries(attn, y[:, :queries])
    x = x[:, :queries] + block.ls_1(attn.out_proj(attend(q, kv, attn.num_heads)))
    mlp = run_mlp(block.mlp, block.ln_2(x).flatten(0, 1))
    return x + block.ls_2(mlp.unflatten(0, x.shape[:2]))
