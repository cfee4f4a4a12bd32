"""Prompts in chunks whose activations are recomputed in the backward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from ._layout import index_rows


def encode_chunks(
    encode: Callable, prompts, rows: torch.Tensor, prefix_rows: int, limit: int
) -> torch.Tensor:
    """Features (n, e) of ``encode(prompts)``, in chunks of about ``limit`` rows (token positions).

    Prompts of one group stay side by side; both chunks of a divided group compute its prefix.

    Args:
        encode: from :class:`clip.Prompts` to features.
        rows: (n,) rows of each prompt. prefix_rows: rows of each group.
        limit: 0 for no chunks.
    """
    group = prompts.group.cpu()
    if not limit or int(rows.sum()) + prefix_rows * len(group.unique()) <= limit:
        return encode(prompts)
    order = group.argsort(stable=True)
    sizes = _chunk_ids(rows[order], group[order], prefix_rows, limit).bincount().tolist()
    if prompts.suffix_index is None:
        suffixes = index_rows(prompts.suffix, order).split(sizes)
    else:
        suffixes = [prompts.suffix] * len(sizes)
    features = []
    for members, suffix in zip(order.split(sizes), suffixes, strict=True):
        used, inverse = group[members].unique(return_inverse=True)
        chunk = prompts.with_groups(used, inverse)
        chunk = dataclasses.replace(chunk, suffix=suffix, eot=prompts.eot.cpu())
        if prompts.suffix_index is None:
            chunk.eot = chunk.eot[members]
        else:
            chunk.suffix_index = prompts.suffix_index.cpu()[members]
        features.append(_recomputed(encode, chunk))
    return index_rows(torch.cat(features), order.argsort())


def _chunk_ids(rows, group, prefix_rows: int, limit: int) -> torch.Tensor:
    """Chunk (n,) of each prompt, numbered without gaps."""
    first = torch.ones_like(group, dtype=torch.bool)
    first[1:] = group[1:] != group[:-1]
    before = (rows + prefix_rows * first).cumsum(0) - rows
    return torch.unique_consecutive(before // limit, return_inverse=True)[1]


def _recomputed(encode: Callable, chunk) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return encode(chunk)

    def forward(prefix, suffix, *deep):
        layers = dict(zip(chunk.deep, deep, strict=True))
        return encode(dataclasses.replace(chunk, prefix=prefix, suffix=suffix, deep=layers))

    inputs = chunk.prefix, chunk.suffix, *chunk.deep.values()
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)
