"""A causal text tower read at EOT, over the rows that its features depend on, each computed once.

A row is one token position of one prompt. Rows behind EOT and rows that a group of prompts has in
common are not repeated; norms, projections and MLPs run over all rows side by side. Only
attention has to know which rows belong together: see :mod:`clip._layout`. The last layer computes
EOT rows only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn

from ._layout import Layout, to_device

QUICK = 1.702  # QuickGELU(x) = x sigmoid(1.702 x) = SiLU(1.702 x) / 1.702


def is_plain(block: nn.Module) -> bool:
    """Whether a block is open_clip's standard one, which :func:`encode` knows by heart."""
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    attn, mlp = block.attn, block.mlp
    return (
        type(attn) is nn.MultiheadAttention
        and attn.in_proj_weight is not None
        and attn.bias_k is None
        and not (attn.add_zero_attn or attn.dropout)
        and isinstance(attn.out_proj, nn.Linear)
        and isinstance(block.ln_1, nn.LayerNorm)
        and isinstance(block.ln_2, nn.LayerNorm)
        and [name for name, _ in mlp.named_children()] == ["c_fc", "gelu", "c_proj"]
        and type(mlp.c_fc) is type(mlp.c_proj) is nn.Linear
    )


class _Continue(torch.autograd.Function):
    """Keys of the tiles (T, P + R, w): the rows of their group (G, P, w), then own ones (k, w)."""

    @staticmethod
    def forward(ctx, prefix, suffix, bucket):
        ctx.bucket, ctx.shape = bucket, prefix.shape
        n, p = len(bucket.group), prefix.shape[1]
        out = suffix.new_zeros(n, p + bucket.every.width, suffix.shape[1])
        out[:, :p] = prefix.index_select(0, bucket.group)
        out.view(-1, suffix.shape[1]).index_copy_(0, bucket.keys, suffix)
        return out

    @staticmethod
    def backward(ctx, grad):
        p = ctx.shape[1]
        prefix = grad.new_zeros(ctx.shape).index_add_(0, ctx.bucket.group, grad[:, :p])
        return prefix, grad.flatten(0, 1).index_select(0, ctx.bucket.keys), None


class _Spread(torch.autograd.Function):
    """Rows x (k, d) at ``place`` among ``size`` rows, zero elsewhere; x itself is not kept."""

    @staticmethod
    def forward(ctx, x, place, size):
        ctx.place = place
        return x.new_zeros(size, x.shape[1]).index_copy_(0, place, x)

    @staticmethod
    def backward(ctx, grad):
        return grad.index_select(0, ctx.place), None, None


class Pick(torch.autograd.Function):
    """x[place] for places that are all different: the gradient is copied, not added up."""

    @staticmethod
    def forward(ctx, x, place):
        ctx.place, ctx.shape = place, x.shape
        return x.index_select(0, place)

    @staticmethod
    def backward(ctx, grad):
        return grad.new_zeros(ctx.shape).index_copy_(0, ctx.place, grad), None


def encode(
    blocks: nn.ModuleList,
    prefix: torch.Tensor,
    suffix: torch.Tensor,
    layout: Layout,
    repeat: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hidden states (n, d) of the prompts' EOT behind the last block.

    Args:
        prefix: (G, P, d) beginnings, positions added.
        suffix: (k, d) own rows in the layout's order, positions added.
        repeat: (k,) row of ``suffix`` that each row of the layout starts as, on the CPU; None: the
            layout's row i is row i.
    """
    shape = prefix.shape[:2]
    x = torch.cat([prefix.flatten(0, 1), suffix])  # (G P + k, d)
    if repeat is not None:
        repeat = torch.cat([torch.arange(shape.numel()), repeat + shape.numel()])
        repeat = to_device(repeat, x.device)
    for i, block in enumerate(blocks):
        last = i + 1 == len(blocks)
        x = _block(block, x, shape, layout, last, repeat if i == 0 else None)
    return x.index_select(0, layout.order)


def _block(block, x, shape, layout: Layout, last: bool, repeat) -> torch.Tensor:
    """One residual attention block over rows x, the first G P of them shared."""
    attn, d = block.attn, x.shape[1]
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    bias = (None, None) if bias is None else (bias[:d], bias[d:])
    y = block.ln_1(x)
    keys = F.linear(y, weight[d:], bias[1])  # (rows, 2 d)
    if repeat is not None:
        x, y, keys = x[repeat], y[repeat], keys[repeat]
    if last:
        at = layout.ends + shape.numel()
        x, y = x.index_select(0, at), y.index_select(0, at)
    queries = F.linear(y, weight[:d], bias[0])
    mixed = _attention(queries, keys, attn.num_heads, shape, layout, last)
    x = x + block.ls_1(attn.out_proj(mixed))
    return x + block.ls_2(run_mlp(block.mlp, block.ln_2(x)))


def _attention(queries, keys, heads: int, shape, layout: Layout, last: bool) -> torch.Tensor:
    """What the asking rows read (rows, d)."""
    n = shape.numel()
    counts = [len(bucket.keys) for bucket in layout.buckets]
    beginning, *suffix = keys.split([n, *counts])
    # copies, since attention keeps its inputs: views would keep all rows in memory
    beginning = beginning.unflatten(0, shape).clone()  # (G, P, 2 d)
    out = []
    if not last:
        if n:
            q = queries[:n].unflatten(0, shape).clone()
            out.append(_attend(q, beginning, heads, causal=True).flatten(0, 1))
        queries = queries[n:]
    asking = [b.ends if last else b.every for b in layout.buckets]
    queries = queries.split([len(ask.place) for ask in asking])
    for bucket, ask, q, kv in zip(layout.buckets, asking, queries, suffix, strict=True):
        tiles = len(bucket.group)
        spread = _Spread.apply(q, ask.place, tiles * ask.width)  # (T M, d)
        kv = _Continue.apply(beginning, kv, bucket)  # (T, P + R, 2 d)
        read = _attend(spread.unflatten(0, (tiles, ask.width)), kv, heads, ask.mask)
        out.append(Pick.apply(read.flatten(0, 1), ask.place))
    return torch.cat(out)


def _attend(q, kv, heads: int, mask=None, causal: bool = False) -> torch.Tensor:
    """Attention of q (n, M, d) to kv (n, L, 2 d), keys before values; (n, M, d)."""
    q = q.unflatten(2, (heads, -1)).transpose(1, 2)  # (n, heads, M, d / heads)
    k, v = kv.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


def run_mlp(mlp: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """The MLP; QuickGELU as the fused SiLU, its factor inside the matrix products."""
    if type(mlp.gelu) is not QuickGELU or mlp.c_fc.bias is None or mlp.c_proj.bias is None:
        return mlp(x)
    # scaling the bias here, not by beta: a GPU's matrix product then adds it in the same kernel
    inner = torch.addmm(QUICK * mlp.c_fc.bias, x, mlp.c_fc.weight.T, alpha=QUICK)
    return torch.addmm(mlp.c_proj.bias, F.silu(inner), mlp.c_proj.weight.T, alpha=1 / QUICK)
