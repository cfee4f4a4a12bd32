"""A training step: its position in the run, and the interface of objects that see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


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


class Observer(Protocol):
    """Sees every batch of a training and changes nothing; its state is stored with the training's.

    :meth:`before_step` leaves random generators and gradients as they are.
    """

    def before_step(self, batch: dict, step: Step) -> None:
        """Called before every training step."""

    def state(self) -> dict[str, Any]:
        """Plain values that :meth:`load_state` takes in a resumed training."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state`."""

    def relations(self) -> dict[str, Any]:
        """The content of ``task_relations.json``; {} or no ``steps`` in it: none is written."""
