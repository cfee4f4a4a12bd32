"""Batches whose images are divided among the processes of a run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from dassl.utils import distributed


class ShareOfBatches(Sampler[list[int]]):
    """Image indices of this process's share of every batch, padded to the largest share.

    Args:
        whole: the batches of the run, the same in every process.
    """

    def __init__(self, whole: Sampler[list[int]]):
        self.whole = whole

    def __iter__(self) -> Iterator[list[int]]:
        for indices in self.whole:
            yield [indices[i] for i in distributed.padded_share(len(indices))]

    def __len__(self) -> int:
        return len(self.whole)


def columns_of(items) -> dict[str, torch.Tensor]:
    """Labels, tasks and domains (N,) of a list of images."""
    names = ("label", "task", "domain")
    return {name: torch.tensor([getattr(item, name) for item in items]) for name in names}
