"""Where the rows of prompts stand: who begins alike, and which rows attend to each other.

Prompts of one group are laid into tiles of a few names. The rows of a tile attend to the group's
beginning and, under a mask, to the rows before them of the same name; tiles of one size are a
bucket, and attention is one fused kernel per bucket.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import torch

TILE = 32  # rows of a tile; a longer prompt has one to itself
ALIGN = 8  # a tile's keys are a multiple of this, as fused kernels want their masks


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; a copy from the CPU is not waited for."""
    return x.to(device, non_blocking=x.device.type == "cpu")


def index_rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x[index] for an index (k,) that may be on the CPU while x is not."""
    return x[to_device(index, x.device)]


def tidy(prompts):
    """The same :class:`clip.Prompts` without beginnings that nobody uses or nobody shares.

    Where no two prompts have a beginning in common, they have SOS in common: what is behind it
    becomes their own.
    """
    used, group = prompts.group.cpu().unique(return_inverse=True)
    prefix = prompts.prefix
    if len(used) < len(group) or prefix.shape[1] < 2:
        prefix = prefix if len(used) == len(prefix) else index_rows(prefix, used)
        return dataclasses.replace(prompts, prefix=prefix, group=group)
    suffix, eot = prompts.suffix, prompts.eot.cpu()
    if prompts.suffix_index is not None:
        suffix, eot = index_rows(suffix, prompts.suffix_index), eot[prompts.suffix_index.cpu()]
    beginning = index_rows(prefix[:, 1:], prompts.group)
    return dataclasses.replace(
        prompts,
        prefix=prefix[:1, :1],
        suffix=torch.cat([beginning, suffix.to(prefix.dtype)], 1),
        group=torch.zeros_like(group),
        eot=eot + beginning.shape[1],
        suffix_index=None,
    )


@dataclass(frozen=True)
class Queries:
    """Rows of a bucket that ask: all of them, or in the last layer those of EOT.

    width: M, places for queries in a tile.
    place: (k,) place of each among the T * M of the bucket.
    mask: (T, 1, M, P + R) bool, the keys that it sees.
    """

    width: int
    place: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class Bucket:
    """T tiles of one size: R places for own rows behind the P rows of a group.

    group: (T,) the group of each tile.
    keys: (k,) place of each own row among the T * (P + R) keys.
    """

    group: torch.Tensor
    keys: torch.Tensor
    every: Queries
    ends: Queries


@dataclass(frozen=True)
class Layout:
    """Where the rows of n prompts stand, k of them their own.

    prompt: (k,) prompt of each own row. token: (k,) its place behind the beginning. Both on the
        CPU, the rest on the device.
    ends: (n,) own row of each EOT. order: (n,) where prompt i stands among ``ends``.
    """

    prompt: torch.Tensor
    token: torch.Tensor
    ends: torch.Tensor
    order: torch.Tensor
    buckets: tuple[Bucket, ...]


def make_layout(
    group: torch.Tensor, length: torch.Tensor, n_shared: int, device: torch.device
) -> Layout:
    """The layout of prompts of own ``length`` (n,) in ``group`` (n,), both on the CPU."""
    return _layout(tuple(group.tolist()), tuple(length.tolist()), n_shared, device)


@lru_cache(maxsize=8)
def _layout(group: tuple, length: tuple, n_shared: int, device: torch.device) -> Layout:
    by_size: dict[int, list[list[int]]] = {}
    for tile in pack_tiles(group, length):
        keys = n_shared + sum(length[i] for i in tile)
        by_size.setdefault(-(-keys // ALIGN) * ALIGN, []).append(tile)
    sized = sorted(by_size.items())
    prompts = torch.tensor([i for _, tiles in sized for tile in tiles for i in tile])  # (n,)
    lengths = torch.tensor(length)[prompts]
    ends = lengths.cumsum(0)
    return Layout(
        prompt=prompts.repeat_interleave(lengths),
        token=_count_up(lengths),
        ends=to_device(ends - 1, device),
        order=to_device(prompts.argsort(), device),
        buckets=tuple(
            _bucket(tiles, group, length, n_shared, size, device) for size, tiles in sized
        ),
    )


def pack_tiles(group: tuple, length: tuple, size: int = TILE) -> list[list[int]]:
    """Prompts of one group together, as many as fit a tile of ``size`` rows; a list per tile."""
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
    """0 .. length - 1 for each length, one after the other."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)


def _bucket(tiles: list[list[int]], group, length, n_shared: int, size: int, device) -> Bucket:
    """The tiles whose keys are padded to ``size``."""
    width = size - n_shared  # R
    names = torch.tensor([len(tile) for tile in tiles])  # (T,)
    rows = torch.tensor([sum(length[i] for i in tile) for tile in tiles])  # (T,)
    tile = torch.arange(len(tiles)).repeat_interleave(rows)  # (k,)
    place = tile * width + _count_up(rows)  # (k,)
    lengths = torch.tensor([length[i] for tile in tiles for i in tile])  # (number of prompts,)
    owner = torch.full((len(tiles) * width,), -1)
    owner[place] = torch.arange(len(lengths)).repeat_interleave(lengths)
    owner = owner.view(len(tiles), width)
    suffix = (owner[:, :, None] == owner[:, None, :]).tril()  # padding sees padding, never nothing
    mask = torch.cat([suffix.new_ones(len(tiles), width, n_shared), suffix], 2)  # (T, R, P + R)

    last = place[lengths.cumsum(0) - 1]  # (number of prompts,)
    at = torch.arange(len(tiles)).repeat_interleave(names) * int(names.max()) + _count_up(names)
    ends = suffix.new_ones(len(tiles) * int(names.max()), size)
    ends[at] = mask.flatten(0, 1)[last]
    ends = ends.view(len(tiles), -1, size)
    return Bucket(
        group=to_device(torch.tensor([group[tile[0]] for tile in tiles]), device),
        keys=to_device(place + (tile + 1) * n_shared, device),
        every=Queries(width, to_device(place, device), to_device(mask[:, None], device)),
        ends=Queries(int(names.max()), to_device(at, device), to_device(ends[:, None], device)),
    )
