"""Prompts in chunks whose activations are computed again in the backward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from ._layout import take


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
    own = prompts.own if prompts.rows is not None else take(prompts.own, order)
    owns = [own] * len(sizes) if prompts.rows is not None else own.split(sizes)
    parts = []
    for part, own in zip(order.split(sizes), owns, strict=True):
        used, inverse = group[part].unique(return_inverse=True)
        rows = None if prompts.rows is None else prompts.rows.cpu()[part]
        eot = prompts.eot.cpu() if rows is not None else prompts.eot.cpu()[part]
        piece = dataclasses.replace(prompts, own=own, group=inverse, eot=eot, rows=rows)
        parts.append(_recomputed(inside, piece, take(prompts.shared, used)))
    return take(torch.cat(parts), order.argsort())


def _number_of(cost, group, begin: int, limit: int) -> torch.Tensor:
    """Chunk (n,) of each prompt; none is left without one."""
    first = torch.ones_like(group, dtype=torch.bool)
    first[1:] = group[1:] != group[:-1]
    before = (cost + begin * first).cumsum(0) - cost
    return torch.unique_consecutive(before // limit, return_inverse=True)[1]


def _recomputed(inside: Callable, piece, shared: torch.Tensor) -> torch.Tensor:
    def forward(shared, own):
        return inside(dataclasses.replace(piece, shared=shared, own=own))

    if not torch.is_grad_enabled():
        return forward(shared, piece.own)
    return checkpoint(forward, shared, piece.own, use_reentrant=False, preserve_rng_state=False)
