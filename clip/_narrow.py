"""Residual blocks of a narrow text tower on a CPU, each as one node of the autograd graph.

There, calling modules and recording a graph of small operators takes as long as the operators.
These are the ones that autograd would run for :mod:`clip._tiles`, in the same order, so features
and gradients are equal to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ._packed import QUICK, is_standard

if TYPE_CHECKING:
    from ._tiles import Tiles

_aten = torch.ops.aten
_attend = _aten._scaled_dot_product_flash_attention_for_cpu.default
_attend_backward = _aten._scaled_dot_product_flash_attention_for_cpu_backward.default
_norm_backward = _aten.native_layer_norm_backward.default
_silu_backward = _aten.silu_backward.default
_INPUT_ONLY = [True, False, False]  # of the gradients of a norm: weight and bias are frozen


class Weights(NamedTuple):
    """The frozen tensors of a block, without the time that modules take to look them up."""

    scale_1: Tensor
    shift_1: Tensor
    w_in: Tensor
    b_in: Tensor
    w_out: Tensor
    b_out: Tensor
    scale_2: Tensor
    shift_2: Tensor
    w_fc: Tensor
    b_fc: Tensor
    w_proj: Tensor
    b_proj: Tensor
    heads: int
    eps: tuple[float, float]


NAMES = [
    *("ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias"),
    *("attn.out_proj.weight", "attn.out_proj.bias", "ln_2.weight", "ln_2.bias"),
    *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
]


class BlockWeights:
    """The weights of frozen blocks, gathered again when one of their tensors is another object.

    ``load_state_dict(assign=True)``, for example, replaces the tensors of modules.
    """

    def __init__(self, blocks: nn.ModuleList):
        self._blocks = blocks
        self._gather()

    def current(self) -> list[Weights]:
        """Those of each block; empty if :class:`Block` does not re-implement all of them."""
        if any(held.get(name) is not value for held, name, value in self._places):
            self._gather()
        return self._weights

    def _gather(self) -> None:
        self._weights = _weights_of(self._blocks)
        self._places = [  # dictionaries, since looking up attributes of modules takes longer
            (held, name, value)
            for module in self._blocks.modules()
            for held in (module._modules, module._parameters)
            for name, value in held.items()
        ]


def _weights_of(blocks: nn.ModuleList) -> list[Weights]:
    found = []
    for block in blocks:
        named = dict(block.named_parameters())
        if list(named) != NAMES or not is_standard(block) or type(block.mlp.gelu) is not QuickGELU:
            return []
        eps = block.ln_1.eps, block.ln_2.eps
        found.append(Weights(*named.values(), block.attn.num_heads, eps))
    return found


class Block(torch.autograd.Function):
    """A block over rows x (N, d) in tiles: (N, d), or, of the last block, EOT rows (n, d).

    QuickGELU is computed as in ``clip._packed.run_mlp``, by SiLU and QUICK.
    """

    @staticmethod
    def forward(ctx, x: Tensor, w: Weights, tiles: Tiles, last: bool) -> Tensor:
        d = x.shape[1]
        y, *norm_1 = torch.native_layer_norm(x, (d,), w.scale_1, w.shift_1, w.eps[0])
        if last:
            rows = torch.addmm(w.b_in[:d], y.index_select(0, tiles.eot), w.w_in[:d].T)
            rows = rows.index_select(0, tiles.eot_gather).view(len(tiles.mask), -1, d)
            (q,) = _heads(rows, 1, w.heads)
            y = torch.addmm(w.b_in[d:], y, w.w_in[d:].T).index_select(0, tiles.gather)
            k, v = _heads(y.view(*tiles.mask.shape[::3], -1), 2, w.heads)
        else:
            y = torch.addmm(w.b_in, y, w.w_in.T).index_select(0, tiles.gather)
            q, k, v = _heads(y.view(*tiles.mask.shape[::3], -1), 3, w.heads)
        slot, mask = _read_from(tiles, last)
        read, sums = _attend(q, k, v, attn_mask=mask)
        rows = read.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, slot)
        middle = x.index_select(0, tiles.eot) if last else x
        middle = middle + torch.addmm(w.b_out, rows, w.w_out.T)
        z, *norm_2 = torch.native_layer_norm(middle, (d,), w.scale_2, w.shift_2, w.eps[1])
        inner = torch.addmm(QUICK * w.b_fc, z, w.w_fc.T, alpha=QUICK)
        ctx.weights, ctx.tiles, ctx.last = w, tiles, last
        ctx.save_for_backward(x, *norm_1, q, k, v, read, sums, middle, *norm_2, inner)
        return middle + torch.addmm(w.b_proj, F.silu(inner), w.w_proj.T, alpha=1 / QUICK)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        w, tiles, last = ctx.weights, ctx.tiles, ctx.last
        x, *norm_1, q, k, v, read, sums, middle, mean_2, rstd_2, inner = ctx.saved_tensors
        d = x.shape[1]
        rows = torch.mm(grad, w.w_proj).mul_(1 / QUICK)
        rows = torch.mm(_silu_backward(rows, inner), w.w_fc).mul_(QUICK)
        norm = (d,), mean_2, rstd_2, w.scale_2, w.shift_2, _INPUT_ONLY
        grad = grad + _norm_backward(rows, middle, *norm)[0]
        slot, mask = _read_from(tiles, last)
        rows = torch.mm(grad, w.w_out)
        rows = rows.new_zeros(q.shape[0] * q.shape[2], d).index_copy_(0, slot, rows)
        rows = rows.view(len(q), q.shape[2], w.heads, -1).transpose(1, 2)
        q, *kv = _attend_backward(rows, q, k, v, read, sums, 0.0, False, attn_mask=mask)
        if last:
            queries = q.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, tiles.eot_slot)
            rows = torch.mm(tiles.sum_slots(_join(kv)), w.w_in[d:])
            rows.index_add_(0, tiles.eot, torch.mm(queries, w.w_in[:d]))
        else:
            rows = torch.mm(tiles.sum_slots(_join([q, *kv])), w.w_in)
        rows = _norm_backward(rows, x, (d,), *norm_1, w.scale_1, w.shift_1, _INPUT_ONLY)[0]
        rows = rows.index_add_(0, tiles.eot, grad) if last else grad + rows
        return rows, None, None, None


def _read_from(tiles: Tiles, last: bool) -> tuple[Tensor, Tensor]:
    """Slots of the rows that leave the attention, and what is added to its scores."""
    if last:
        return tiles.eot_slot, tiles.cast("eot_mask", torch.float32)
    return tiles.slot, tiles.cast("mask", torch.float32)


def _heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Queries, keys or values, one after another in x (T, K, parts d); each (T, heads, K, d')."""
    return x.unflatten(2, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def _join(parts: list[Tensor]) -> Tensor:
    """The inverse of :func:`_heads`."""
    return torch.stack(parts).permute(1, 3, 0, 2, 4).flatten(2)
