"""Layout of packed prompts: which token positions ("rows") attend to which keys.

The suffixes of one group are packed side by side into tiles. A row attends to the prefix of its
group and, under a mask, to the rows before it in the same suffix. Tiles of one size form a bucket,
and attention is one fused kernel per bucket. A tile with a prefix of P = 3 rows, the suffixes a
(3 rows) and b (2 rows), and one row of padding (R = 6):

    keys      prefix      suffix rows
    query     p0 p1 p2    a0 a1 a2 b0 b1 --
      a0       x  x  x     x
      a1       x  x  x     x  x
      a2 EOT   x  x  x     x  x  x
      b0       x  x  x              x
      b1 EOT   x  x  x              x  x

A position of the padded tiles, counted over a bucket, is a slot.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import torch

TILE = 32  # suffix rows per tile; a longer suffix has a tile of its own
ALIGN = 8  # keys per tile are a multiple of this, as fused kernels require of their masks


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; the copy from the CPU does not synchronize."""
    return x.to(device, non_blocking=x.device.type == "cpu")


def index_rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x[index] for an index (k,) that may be on the CPU while x is not."""
    return x[to_device(index, x.device)]


def drop_unused_prefixes(prompts):
    """The same :class:`clip.Prompts` without prefixes that no prompt uses.

    If no two prompts share a prefix, only its common first tokens stay in it, and the rest moves
    into the suffixes; but deep contexts overwrite rows of the prefix, where they have to stay.
    """
    used, group = prompts.group.cpu().unique(return_inverse=True)
    prefix, start = prompts.prefix, prompts.start
    if len(used) < len(group) or prefix.shape[1] <= start or prompts.deep:
        if len(used) == len(prefix):
            return dataclasses.replace(prompts, group=group)
        return prompts.with_groups(used, group)
    suffix, eot = prompts.suffix, prompts.eot.cpu()
    if prompts.suffix_index is not None:
        suffix, eot = index_rows(suffix, prompts.suffix_index), eot[prompts.suffix_index.cpu()]
    context = index_rows(prefix[:, start:], prompts.group)
    return dataclasses.replace(
        prompts,
        prefix=prefix[:1, :start],
        suffix=torch.cat([context, suffix.to(prefix.dtype)], 1),
        group=torch.zeros_like(group),
        eot=eot + context.shape[1],
        suffix_index=None,
    )


@dataclass(frozen=True)
class Queries:
    """Query rows of a bucket: all suffix rows, or, in the last layer, the EOT rows.

    width: M, query slots per tile.
    slots: (k,) slot of each query among the T * M of the bucket.
    mask: (T, 1, M, P + R) bool, the keys that each slot attends to.
    """

    width: int
    slots: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class Bucket:
    """T tiles of one size: R slots for suffix rows after the P rows of a prefix.

    group: (T,) group of each tile.
    key_slots: (k,) slot of each suffix row among the T * (P + R) keys.
    """

    group: torch.Tensor
    key_slots: torch.Tensor
    all_rows: Queries
    eot_rows: Queries


@dataclass(frozen=True)
class Layout:
    """Order of the k suffix rows of n prompts, bucket by bucket.

    prompt: (k,) prompt of each row. token: (k,) its position in the suffix. Both on the CPU, the
        rest on the device.
    eot_rows: (n,) the EOT rows, in the layout's order of prompts.
    order: (n,) index of prompt i in ``eot_rows``.
    """

    prompt: torch.Tensor
    token: torch.Tensor
    eot_rows: torch.Tensor
    order: torch.Tensor
    buckets: tuple[Bucket, ...]


def make_layout(
    group: torch.Tensor, length: torch.Tensor, prefix_length: int, device: torch.device
) -> Layout:
    """The layout of prompts by ``group`` (n,) and suffix ``length`` (n,), both on the CPU."""
    return _layout(tuple(group.tolist()), tuple(length.tolist()), prefix_length, device)


@lru_cache(maxsize=8)
def _layout(group: tuple, length: tuple, prefix_length: int, device: torch.device) -> Layout:
    by_size: dict[int, list[list[int]]] = {}
    for tile in pack_tiles(group, length):
        keys = prefix_length + sum(length[i] for i in tile)
        by_size.setdefault(-(-keys // ALIGN) * ALIGN, []).append(tile)
    sized = sorted(by_size.items())
    prompts = torch.tensor([i for _, tiles in sized for tile in tiles for i in tile])  # (n,)
    lengths = torch.tensor(length)[prompts]
    ends = lengths.cumsum(0)
    return Layout(
        prompt=prompts.repeat_interleave(lengths),
        token=_count_up(lengths),
        eot_rows=to_device(ends - 1, device),
        order=to_device(prompts.argsort(), device),
        buckets=tuple(
            _bucket(tiles, group, length, prefix_length, size, device) for size, tiles in sized
        ),
    )


def pack_tiles(group: tuple, length: tuple, size: int = TILE) -> list[list[int]]:
    """Prompts per tile of ``size`` suffix rows: of one group, as many as fit."""
    tiles: list[list[int]] = []
    room, current = 0, None
    for i in sorted(range(len(group)), key=lambda i: (group[i], length[i])):
        if group[i] != current or length[i] > room:
            tiles.append([])
            room, current = size, group[i]
        tiles[-1].append(i)
        room -= length[i]
    return tiles


def _count_up(lengths: torch.Tensor) -> torch.Tensor:
    """0 .. length - 1 for each length, concatenated."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)


def _bucket(tiles: list[list[int]], group, length, prefix_length: int, size: int, device) -> Bucket:
    """The tiles whose keys are padded to ``size``."""
    width = size - prefix_length  # R
    names = torch.tensor([len(tile) for tile in tiles])  # (T,)
    rows = torch.tensor([sum(length[i] for i in tile) for tile in tiles])  # (T,)
    tile = torch.arange(len(tiles)).repeat_interleave(rows)  # (k,)
    slots = tile * width + _count_up(rows)  # (k,)
    lengths = torch.tensor([length[i] for tile in tiles for i in tile])  # (number of prompts,)
    owner = torch.full((len(tiles) * width,), -1)
    owner[slots] = torch.arange(len(lengths)).repeat_interleave(lengths)
    owner = owner.view(len(tiles), width)
    # padding attends to padding: a row of a softmax must not be all masked
    suffix = (owner[:, :, None] == owner[:, None, :]).tril()
    prefix = suffix.new_ones(len(tiles), width, prefix_length)
    mask = torch.cat([prefix, suffix], 2)  # (T, R, P + R)

    most = int(names.max())
    eot_slots = torch.arange(len(tiles)).repeat_interleave(names) * most + _count_up(names)
    eot_mask = suffix.new_ones(len(tiles) * most, size)
    eot_mask[eot_slots] = mask.flatten(0, 1)[slots[lengths.cumsum(0) - 1]]
    eot_mask = eot_mask.view(len(tiles), 1, most, size)
    return Bucket(
        group=to_device(torch.tensor([group[tile[0]] for tile in tiles]), device),
        key_slots=to_device(slots + (tile + 1) * prefix_length, device),
        all_rows=Queries(width, to_device(slots, device), to_device(mask[:, None], device)),
        eot_rows=Queries(most, to_device(eot_slots, device), to_device(eot_mask, device)),
    )
