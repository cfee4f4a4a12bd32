"""The position of a training step in its run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Epoch and batch index of a training step, counted from 0."""

    epoch: int
    batch_idx: int
    num_batches: int  # of an epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether this is the last batch of its epoch."""
        return self.batch_idx + 1 == self.num_batches

    @property
    def number(self) -> int:
        """Steps before this one, over all epochs."""
        return self.epoch * self.num_batches + self.batch_idx
