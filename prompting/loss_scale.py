"""Loss scaling of mixed precision (PREC amp)."""

from __future__ import annotations

import torch


class LossScaler(torch.amp.GradScaler):
    """torch's loss scaler, which counts and reports the steps that it skips.

    The scale begins at OPTIM.LOSS_SCALE. When a scaled gradient overflows fp16, the optimizer step
    is skipped and the scale is halved, so the first steps of a run may have no effect.

    Attributes:
        skipped: number of skipped steps.
    """

    def __init__(self, device: str, init_scale: float = 2.0**16, enabled: bool = True):
        super().__init__(device, init_scale=init_scale, enabled=enabled)
        self.skipped = 0
        self._known = self.get_scale()  # of the last step: to read it synchronizes with a GPU

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        """Adapt the scale; print a line if the step was skipped."""
        super().update(new_scale)
        before, self._known = self._known, self.get_scale()
        if self._known < before:
            self.skipped += 1
            print(
                f"A step is skipped: a gradient overflowed fp16 at the loss scale {before:g}; "
                f"the scale is {self._known:g} now (PREC amp)"
            )

    def state_dict(self) -> dict:
        """torch's state and the number of skipped steps; empty if PREC is not amp."""
        state = super().state_dict()
        return {**state, "skipped": self.skipped} if state else {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore a :meth:`state_dict`; an empty one changes nothing."""
        if state_dict:
            super().load_state_dict(state_dict)
            self.skipped, self._known = state_dict.get("skipped", 0), self.get_scale()
