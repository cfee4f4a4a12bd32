"""The interface of objects that see every batch of a training and change nothing."""

from __future__ import annotations

from typing import Any, Protocol

from .step import Step


class Observer(Protocol):
    """Called before every training step; its state is stored with that of the training.

    An observer may also have ``relations()``, the content of ``task_relations.json``.
    """

    def before_step(self, batch: dict, step: Step) -> None:
        """Look at a batch; random generators and gradients must stay as they are."""

    def state(self) -> dict[str, Any]:
        """Plain values that :meth:`load_state` takes in a resumed training."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state`."""
