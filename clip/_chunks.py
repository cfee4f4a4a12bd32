"""Prompts in chunks whose activations are computed again in the backward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from ._layout import index_rows


def run(inside: Callable, prompts, cost: torch.Tensor, begin: int, limit: int) -> torch.Tensor:
    """Features (n, e) of ``inside(prompts)``, in chunks of about ``limit`` rows.

    Prompts of one group stay side by side; a group that is cut is begun in both chunks.

    Args:
        inside: from :class:`clip.Prompts` to features.
        cost: (n,) rows that each prompt adds. begin: rows that each group adds.
        limit: 0 for no chunks.
    """
    group = prompts.group.cpu()
    if not limit or int(cost.sum()) + begin * len(group.unique()) <= limit:
        return inside(prompts)
    order = group.argsort(stable=True)
    chunk = _number_of(cost[order], group[order], begin, limit)
    sizes = chunk.bincount().tolist()
    suffix = (
        prompts.suffix if prompts.suffix_index is not None else index_rows(prompts.suffix, order)
    )
    owns = [suffix] * len(sizes) if prompts.suffix_index is not None else suffix.split(sizes)
    parts = []
    for part, suffix in zip(order.split(sizes), owns, strict=True):
        used, inverse = group[part].unique(return_inverse=True)
        rows = None if prompts.suffix_index is None else prompts.suffix_index.cpu()[part]
        eot = prompts.eot.cpu() if rows is not None else prompts.eot.cpu()[part]
        piece = dataclasses.replace(
            prompts, suffix=suffix, group=inverse, eot=eot, suffix_index=rows
        )
        parts.append(_recomputed(inside, piece, index_rows(prompts.prefix, used)))
    return index_rows(torch.cat(parts), order.argsort())


def _number_of(cost, group, begin: int, limit: int) -> torch.Tensor:
    """Chunk (n,) of each prompt; none is left without one."""
    first = torch.ones_like(group, dtype=torch.bool)
    first[1:] = group[1:] != group[:-1]
    before = (cost + begin * first).cumsum(0) - cost
    return torch.unique_consecutive(before // limit, return_inverse=True)[1]


def _recomputed(inside: Callable, piece, prefix: torch.Tensor) -> torch.Tensor:
    def forward(prefix, suffix):
        return inside(dataclasses.replace(piece, prefix=prefix, suffix=suffix))

    if not torch.is_grad_enabled():
        return forward(prefix, piece.suffix)
    return checkpoint(forward, prefix, piece.suffix, use_reentrant=False, preserve_rng_state=False)
