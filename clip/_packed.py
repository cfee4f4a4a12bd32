"""A causal text tower read at EOT that computes each token position ("row") once.

Rows after EOT are left out, and the prefix that a group of prompts shares is computed once. Norms,
projections and MLPs run over all rows side by side; only attention needs the rows' layout (see
:mod:`clip._layout`). The last layer computes EOT rows only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn

from ._layout import Layout, to_device
from ._prompts import overwrite_contexts

QUICK = 1.702  # QuickGELU(x) = x sigmoid(1.702 x) = SiLU(1.702 x) / 1.702


def is_standard(block: nn.Module) -> bool:
    """Whether a block is open_clip's standard one, which :func:`encode` re-implements."""
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


class _GatherKV(torch.autograd.Function):
    """Keys of the tiles (T, P + R, w): prefixes (G, P, w) by group, then suffix rows (k, w)."""

    @staticmethod
    def forward(ctx, prefix, suffix, bucket):
        ctx.bucket, ctx.shape = bucket, prefix.shape
        n, p = len(bucket.group), prefix.shape[1]
        out = suffix.new_zeros(n, p + bucket.all_rows.width, suffix.shape[1])
        out[:, :p] = prefix.index_select(0, bucket.group)
        out.view(-1, suffix.shape[1]).index_copy_(0, bucket.key_slots, suffix)
        return out

    @staticmethod
    def backward(ctx, grad):
        p = ctx.shape[1]
        prefix = grad.new_zeros(ctx.shape).index_add_(0, ctx.bucket.group, grad[:, :p])
        return prefix, grad.flatten(0, 1).index_select(0, ctx.bucket.key_slots), None


class _ScatterRows(torch.autograd.Function):
    """Rows x (k, d) at ``index`` among ``size`` rows, zero elsewhere; does not save x."""

    @staticmethod
    def forward(ctx, x, index, size):
        ctx.index = index
        return x.new_zeros(size, x.shape[1]).index_copy_(0, index, x)

    @staticmethod
    def backward(ctx, grad):
        return grad.index_select(0, ctx.index), None, None


class GatherRows(torch.autograd.Function):
    """x[index] for distinct indices: the gradient is copied, not added up."""

    @staticmethod
    def forward(ctx, x, index):
        ctx.index, ctx.shape = index, x.shape
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, grad):
        return grad.new_zeros(ctx.shape).index_copy_(0, ctx.index, grad), None


def encode(
    blocks: nn.ModuleList,
    prefix: torch.Tensor,
    suffix: torch.Tensor,
    layout: Layout,
    row_ids: torch.Tensor | None = None,
    deep: Mapping[int, torch.Tensor] | None = None,
    start: int = 1,
) -> torch.Tensor:
    """Hidden states (n, d) of the prompts' EOT rows after the last block.

    Args:
        prefix: (G, P, d) embeddings, positions added.
        suffix: (r, d) suffix rows, positions added, in the layout's order (r = k) or, with
            ``row_ids``, each distinct row once.
        row_ids: (k,) row of ``suffix`` for each row of the layout, on the CPU.
        deep: (G, m, d) by index of the block, and start: see :class:`clip.Prompts`.
    """
    deep = deep or {}
    shape = prefix.shape[:2]
    x = torch.cat([prefix.flatten(0, 1), suffix])  # (G P + r, d)
    if row_ids is not None:
        row_ids = torch.cat([torch.arange(shape.numel()), row_ids + shape.numel()])
        row_ids = to_device(row_ids, x.device)
    for i, block in enumerate(blocks):
        last = i + 1 == len(blocks)
        if i in deep:
            x = overwrite_contexts(x, deep[i], shape[1], start)
        x = _block(block, x, shape, layout, last, row_ids if i == 0 else None)
    return x.index_select(0, layout.order)


def _block(block, x, shape, layout: Layout, last: bool, row_ids) -> torch.Tensor:
    """One residual attention block over rows x, the first G P of them prefixes."""
    attn, y = block.attn, block.ln_1(x)
    keys = project_keys(attn, y)  # (rows, 2 d)
    if row_ids is not None:  # repeated rows are projected once, and expanded for attention
        x, y, keys = x[row_ids], y[row_ids], keys[row_ids]
    if last:
        eot = layout.eot_rows + shape.numel()
        x, y = x.index_select(0, eot), y.index_select(0, eot)
    queries = project_queries(attn, y)
    mixed = _attention(queries, keys, attn.num_heads, shape, layout, last)
    x = x + block.ls_1(attn.out_proj(mixed))
    return x + block.ls_2(run_mlp(block.mlp, block.ln_2(x)))


def _attention(queries, keys, heads: int, shape, layout: Layout, last: bool) -> torch.Tensor:
    """Attention output of the query rows (rows, d)."""
    n = shape.numel()
    counts = [len(bucket.key_slots) for bucket in layout.buckets]
    prefix, *suffixes = keys.split([n, *counts])
    # copies, since attention saves its inputs: views would keep all rows in memory
    prefix = prefix.unflatten(0, shape).clone()  # (G, P, 2 d)
    out = []
    if not last:
        if n:
            q = queries[:n].unflatten(0, shape).clone()
            out.append(attend(q, prefix, heads, causal=True).flatten(0, 1))
        queries = queries[n:]
    asking = [b.eot_rows if last else b.all_rows for b in layout.buckets]
    queries = queries.split([len(ask.slots) for ask in asking])
    for bucket, ask, q, suffix in zip(layout.buckets, asking, queries, suffixes, strict=True):
        tiles = len(bucket.group)
        padded = _ScatterRows.apply(q, ask.slots, tiles * ask.width)  # (T M, d)
        kv = _GatherKV.apply(prefix, suffix, bucket)  # (T, P + R, 2 d)
        read = attend(padded.unflatten(0, (tiles, ask.width)), kv, heads, ask.mask)
        out.append(GatherRows.apply(read.flatten(0, 1), ask.slots))
    return torch.cat(out)


def project_queries(attn: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """The queries (..., d) of x (..., d)."""
    d, bias = attn.embed_dim, attn.in_proj_bias
    return F.linear(x, attn.in_proj_weight[:d], None if bias is None else bias[:d])


def project_keys(attn: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """The keys, then the values (..., 2 d), of x (..., d)."""
    d, bias = attn.embed_dim, attn.in_proj_bias
    return F.linear(x, attn.in_proj_weight[d:], None if bias is None else bias[d:])


def attend(q, kv, heads: int, mask=None, causal: bool = False) -> torch.Tensor:
    """Attention of q (n, M, d) to kv (n, L, 2 d), keys before values; (n, M, d)."""
    q = q.unflatten(2, (heads, -1)).transpose(1, 2)  # (n, heads, M, d / heads)
    k, v = kv.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


def run_mlp(mlp: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """The MLP, with QuickGELU as the fused SiLU and its factor inside the matrix products."""
    if type(mlp.gelu) is not QuickGELU or mlp.c_fc.bias is None or mlp.c_proj.bias is None:
        return mlp(x)
    # scaling the bias here, not by beta: a GPU's matrix product then adds it in the same kernel
    inner = torch.addmm(QUICK * mlp.c_fc.bias, x, mlp.c_fc.weight.T, alpha=QUICK)
    return torch.addmm(mlp.c_proj.bias, F.silu(inner), mlp.c_proj.weight.T, alpha=1 / QUICK)
