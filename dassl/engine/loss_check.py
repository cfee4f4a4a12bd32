"""Stops a training whose loss is not finite."""

from __future__ import annotations

import math

import torch


class LossCheck:
    """Checks losses as they come, those on a GPU later and together.

    Reading a loss from a GPU synchronizes, so such losses wait for :meth:`check_pending`.
    """

    def __init__(self):
        self._pending: list[torch.Tensor] = []

    def add(self, loss: float | torch.Tensor) -> None:
        """Check a loss, at once if it is on the CPU.

        Raises:
            FloatingPointError: it is infinite or not a number.
        """
        if isinstance(loss, torch.Tensor) and loss.device.type != "cpu":
            self._pending.append(loss.detach())
        else:
            _check(float(loss.detach() if torch.is_tensor(loss) else loss))

    def check_pending(self) -> None:
        """Check the losses on a GPU that were added since the last call."""
        if self._pending:
            losses = torch.stack([loss.reshape(()) for loss in self._pending])
            self._pending = []
            for value in losses.tolist():
                _check(value)


def _check(value: float) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the loss is {value}; try a smaller OPTIM.LR, or PREC fp32 if it is not"
        )
