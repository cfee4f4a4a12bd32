"""Batches of which each process of a run loads its share of the images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import BatchSampler, Sampler

from dassl.utils import distributed


class ShareOfBatches(Sampler[list[int]]):
    """This process's share of the places of every batch, all shares filled to one size.

    Args:
        whole: the batches of the run; every process must draw the same.
    """

    def __init__(self, whole: BatchSampler):
        self.whole = whole

    def __iter__(self) -> Iterator[list[int]]:
        for places in self.whole:
            mine = places[distributed.share(len(places))]
            # a share may be short or empty; what fills it is dropped when they are gathered
            yield [*mine, *([places[-1]] * (distributed.largest_share(len(places)) - len(mine)))]

    def __len__(self) -> int:
        return len(self.whole)


def columns_of(items) -> dict[str, torch.Tensor]:
    """Labels, tasks and domains (N,) of a list of images."""
    names = ("label", "task", "domain")
    return {name: torch.tensor([getattr(item, name) for item in items]) for name in names}
