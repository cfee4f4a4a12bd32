"""Running averages for the lines of a log."""

from __future__ import annotations

from collections import defaultdict

import torch


class AverageMeter:
    """Last value and average of a number.

    Args:
        ema: an exponential moving average (0.9 of the old, 0.1 of the new, starting at the first
            value) instead of the mean over all.
    """

    def __init__(self, ema: bool = False):
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.val = self.avg = self.sum = 0.0
        self.count = 0

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        """Take in a value that stands for ``n`` of them, such as the mean over a batch."""
        self.val = val.item() if isinstance(val, torch.Tensor) else val
        first = self.count == 0
        self.sum += self.val * n
        self.count += n
        if not self.ema:
            self.avg = self.sum / self.count
        else:
            self.avg = self.val if first else 0.9 * self.avg + 0.1 * self.val


class MetricMeter:
    """An :class:`AverageMeter` per name, printed as ``loss 0.1234 (0.2345)``: last, average."""

    def __init__(self, delimiter: str = " "):
        self.delimiter = delimiter
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)

    def update(self, input_dict: dict[str, float | torch.Tensor] | None) -> None:
        """Take in one value per name; None changes nothing."""
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(
                "MetricMeter.update takes a dict of names and numbers, "
                f"but got a {type(input_dict).__name__}"
            )
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{k} {m.val:.4f} ({m.avg:.4f})" for k, m in self.meters.items())
