"""A causal text tower in few, equal kernels, for where starting kernels takes the time.

This is so on GPUs, and on CPUs in narrow towers.

As in :mod:`clip._packed`, norms, projections and MLPs compute each token position ("row") once. For
attention, rows are gathered into tiles: the prefix of one group and the suffixes of a few of its
prompts, under a mask. All tiles are padded to one size, so that a layer's attention is one gather,
one kernel and one gather back, whatever the prompts. :mod:`clip._packed` computes less padding in
more kernels, which suits wide towers on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F

from . import _narrow
from ._layout import ALIGN, pack_tiles, to_device
from ._packed import GatherRows, project_keys, project_queries, run_mlp
from ._prompts import overwrite_contexts

TILE = 64  # suffix rows per tile; a longer suffix has a tile of its own

PREFIX, PADDING = -1, -2  # instead of the index of a prompt


@dataclass(frozen=True)
class Structure:
    """A batch of :class:`clip.Prompts` without its embeddings, as a hashable value."""

    group: tuple[int, ...]
    eot: tuple[int, ...]
    suffix_index: tuple[int, ...] | None
    prefixes: int  # G
    prefix_length: int  # P
    suffix_length: int  # S
    deep: tuple[int, ...] = ()  # blocks before which contexts are overwritten
    start: int = 1  # tokens of a prefix before its context

    @classmethod
    def of(cls, prompts) -> Structure:
        """The structure of :class:`clip.Prompts`."""
        rows = prompts.suffix_index
        return cls(
            tuple(prompts.group.tolist()),
            tuple(prompts.eot.tolist()),
            None if rows is None else tuple(rows.tolist()),
            *prompts.prefix.shape[:2],
            prompts.suffix.shape[1],
            tuple(prompts.deep),
            prompts.start,
        )


@dataclass(frozen=True)
class Tiles:
    """T tiles of K slots for N rows: those of G prefixes of P tokens, then those of n suffixes.

    All tensors are on the device.

    Attributes:
        source: (N,) index of each row's embedding in [prefixes; suffixes] of the prompts.
        position: (N,) token position of each row.
        gather: (T * K,) row in each slot; padding repeats row 0.
        slot: (N,) slot of each row; of a prefix row, which all tiles of its group hold, the first.
        prefix: (G, P). start: tokens of a prefix before its context.
        used: (G,) the prefixes of the prompts that these G are.
        of_group: (G, T) 1 where a tile belongs to a group, else 0; fp32.
        mask: (T, 1, K, K) bool, the slots that each slot attends to.
        eot: (n,) row of each prompt's EOT.
        eot_gather: (T * M,) prompt of each of the M query slots of a tile in the last layer.
        eot_slot: (n,) query slot of each prompt.
        eot_mask: (T, 1, M, K) bool.
    """

    source: torch.Tensor
    position: torch.Tensor
    gather: torch.Tensor
    slot: torch.Tensor
    prefix: tuple[int, int]
    start: int
    used: torch.Tensor
    of_group: torch.Tensor
    mask: torch.Tensor
    eot: torch.Tensor
    eot_gather: torch.Tensor
    eot_slot: torch.Tensor
    eot_mask: torch.Tensor
    _cast: dict = field(default_factory=dict, repr=False, compare=False)

    def cast(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """``of_group`` in ``dtype``, or a mask as what is added to scores: 0 or -inf."""
        if (name, dtype) not in self._cast:
            x = getattr(self, name)
            if x.dtype == torch.bool:
                x = torch.zeros(x.shape, dtype=dtype, device=x.device).masked_fill(~x, -torch.inf)
            self._cast[name, dtype] = x.to(dtype)
        return self._cast[name, dtype]

    def sum_slots(self, x: torch.Tensor) -> torch.Tensor:
        """Sums (N, w) over the slots x (T, K, w) of each row."""
        g, p = self.prefix
        own = x.flatten(0, 1).index_select(0, self.slot[g * p :])
        if not g * p:
            return own
        # the sum over a group's tiles as a product: index_add_ on a GPU adds in no fixed order
        prefix = self.cast("of_group", x.dtype) @ x[:, :p].flatten(1)
        return torch.cat([prefix.view(g * p, -1), own])


@lru_cache(maxsize=8)
def make_tiles(prompts: Structure, device: torch.device) -> Tiles:
    """The tiles of prompts of one structure."""
    prefixes, own, group = _sources(prompts)
    p = len(prefixes[0])
    tiles = pack_tiles(tuple(group), tuple(map(len, own)), TILE)
    size = p + max(sum(len(own[i]) for i in tile) for tile in tiles)
    size = -(-size // ALIGN) * ALIGN  # K
    lists = _assign_slots(prefixes, own, group, tiles, size)
    lists["used"] = sorted(set(prompts.group))
    index = {k: to_device(torch.tensor(x, dtype=torch.long), device) for k, x in lists.items()}
    owner, eot_at = index.pop("owner").view(len(tiles), size), index.pop("eot_at")
    mask = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == PREFIX)
    mask = mask.tril()  # (T, K, K); padding attends to itself, as a softmax over nothing is NaN
    eot_mask = mask.flatten(0, 1).index_select(0, eot_at).view(len(tiles), 1, -1, size)
    of_group = torch.zeros(len(prefixes), len(tiles))
    of_group[[group[tile[0]] for tile in tiles], range(len(tiles))] = 1
    return Tiles(
        **index,
        prefix=(len(prefixes), p),
        start=prompts.start,
        of_group=to_device(of_group, device),
        mask=mask[:, None],
        eot_mask=eot_mask,
    )


def _assign_slots(prefixes, own, group: list[int], tiles, size: int) -> dict[str, list[int]]:
    """The index tensors of :class:`Tiles` as lists, and two for the masks.

    These are "owner" (T * K), the prompt in each slot, or PREFIX or PADDING; and "eot_at" (T * M),
    the slot of the EOT of each query of the last layer.
    """
    p, most = len(prefixes[0]), max(map(len, tiles))
    source = [row for rows in prefixes for row in rows]
    position = [*range(p)] * len(prefixes)
    eot, eot_slot, eot_gather, eot_at = [0] * len(own), [0] * len(own), [], []
    owner, gather, slot = [], [], []
    for t, tile in enumerate(tiles):
        begin = group[tile[0]] * p
        owner += [PREFIX] * p
        gather += range(begin, begin + p)
        for m, i in enumerate(tile):
            length = len(own[i])
            slot += range(len(owner), len(owner) + length)
            gather += range(len(source), len(source) + length)
            owner += [i] * length
            source += own[i]
            position += range(p, p + length)
            eot[i], eot_slot[i] = len(source) - 1, t * most + m
            eot_at.append(len(owner) - 1)
        padding, idle = (t + 1) * size - len(owner), most - len(tile)
        owner += [PADDING] * padding
        gather += [0] * padding
        eot_gather += tile + [0] * idle
        eot_at += [t * size] * idle
    first = {group[tile[0]]: t for t, tile in reversed(list(enumerate(tiles)))}
    slot = [first[g] * size + i for g in range(len(prefixes)) for i in range(p)] + slot
    rows = {"source": source, "position": position, "gather": gather, "slot": slot}
    queries = {"eot": eot, "eot_gather": eot_gather, "eot_slot": eot_slot, "eot_at": eot_at}
    return {**rows, **queries, "owner": owner}


def _sources(prompts: Structure) -> tuple[list, list, list[int]]:
    """Indices of the rows in [prefixes; suffixes], one list of G * P + r * S embeddings.

    Returns:
        The rows of each used prefix, those of each suffix, and the prefix of each prompt. If no
        two prompts share a prefix, only its common first tokens stay in it, and the rest moves into
        the suffixes; but deep contexts overwrite rows of the prefix, where they have to stay.
    """
    p, s, start = prompts.prefix_length, prompts.suffix_length, prompts.start
    used = {g: i for i, g in enumerate(sorted(set(prompts.group)))}
    rows = prompts.suffix_index or range(len(prompts.group))
    starts = [prompts.prefixes * p + r * s for r in rows]
    own = [range(a, a + prompts.eot[r] + 1) for a, r in zip(starts, rows, strict=True)]
    if len(used) < len(prompts.group) or p <= start or prompts.deep:
        prefixes = [range(g * p, (g + 1) * p) for g in used]
        return prefixes, own, [used[g] for g in prompts.group]
    left = [range(g * p + start, (g + 1) * p) for g in prompts.group]
    own = [[*a, *b] for a, b in zip(left, own, strict=True)]
    return [range(start)], own, [0] * len(own)


class _ToTiles(torch.autograd.Function):
    """Rows x (N, w) in their slots (T, K, w)."""

    @staticmethod
    def forward(ctx, x, tiles):
        ctx.tiles = tiles
        return x.index_select(0, tiles.gather).view(*tiles.mask.shape[::3], -1)

    @staticmethod
    def backward(ctx, grad):
        return ctx.tiles.sum_slots(grad), None


class _ToQueries(torch.autograd.Function):
    """Queries q (n, d) of the prompts' EOT in their slots (T, M, d)."""

    @staticmethod
    def forward(ctx, q, tiles):
        ctx.tiles = tiles
        return q.index_select(0, tiles.eot_gather).view(len(tiles.mask), -1, q.shape[1])

    @staticmethod
    def backward(ctx, grad):
        return grad.flatten(0, 1).index_select(0, ctx.tiles.eot_slot), None


def encode(
    blocks: torch.nn.ModuleList,
    x: torch.Tensor,
    positions: torch.Tensor,
    tiles: Tiles,
    deep: Mapping[int, torch.Tensor] | None = None,
    narrow: Sequence[_narrow.Weights] = (),
) -> torch.Tensor:
    """Hidden states (n, d) of the prompts' EOT rows after the last block.

    Args:
        x: (G P + r S, d) embeddings of the prefixes, then of the suffixes.
        positions: (L, d) positional embeddings.
        deep: contexts by index of the block, for all prefixes: see :class:`clip.Prompts`.
        narrow: the weights of the blocks, to run them as in :mod:`clip._narrow`.
    """
    deep = deep or {}
    positions = positions.to(x.dtype).index_select(0, tiles.position)  # (N, d)
    x = x.index_select(0, tiles.source) + positions
    for i, block in enumerate(blocks):
        if i in deep:
            context = deep[i].index_select(0, tiles.used)
            x = overwrite_contexts(x, context, tiles.prefix[1], tiles.start)
        last = i + 1 == len(blocks)
        if narrow:
            x = _narrow.Block.apply(x, narrow[i], tiles, last)
        elif last:
            x = _finish(block, x.index_select(0, tiles.eot), _attend_at_eot(block, x, tiles))
        else:
            x = _finish(block, x, _attend_all(block, x, tiles))
    return x


def _finish(block, x: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """The rest of a residual block after attention, whose output is ``read``."""
    x = x + block.ls_1(block.attn.out_proj(read))
    return x + block.ls_2(run_mlp(block.mlp, block.ln_2(x)))


def _attend_all(block, x: torch.Tensor, tiles: Tiles) -> torch.Tensor:
    """Attention output of every row (N, d)."""
    attn = block.attn
    qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)  # (N, 3 d)
    q, k, v = _ToTiles.apply(qkv, tiles).unflatten(2, (3, attn.num_heads, -1)).unbind(2)
    read = _attention(q, k, v, tiles.cast("mask", q.dtype))
    return GatherRows.apply(read.flatten(0, 1), tiles.slot)


def _attend_at_eot(block, x: torch.Tensor, tiles: Tiles) -> torch.Tensor:
    """Attention output of the EOT rows (n, d)."""
    attn, y = block.attn, block.ln_1(x)
    q = project_queries(attn, y.index_select(0, tiles.eot))
    q = _ToQueries.apply(q, tiles).unflatten(2, (attn.num_heads, -1))
    kv = _ToTiles.apply(project_keys(attn, y), tiles)
    k, v = kv.unflatten(2, (2, attn.num_heads, -1)).unbind(2)
    read = _attention(q, k, v, tiles.cast("eot_mask", q.dtype))
    return GatherRows.apply(read.flatten(0, 1), tiles.eot_slot)


def _attention(q, k, v, mask) -> torch.Tensor:
    """Attention of q (T, M, heads, d / heads) to k and v (T, K, heads, d / heads); (T, M, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
