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
        self._val = self._avg = self._sum = 0.0
        self._count = 0
        self._pending: list[tuple[torch.Tensor, int]] = []

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        """Take in a value that stands for ``n`` of them, such as the mean over a batch.

        A tensor is kept as it is until a number is asked for, so that nothing waits for the GPU.
        """
        if isinstance(val, torch.Tensor):
            self._pending.append((val.detach(), n))
        else:
            self._settle()
            self._take(val, n)

    @property
    def val(self) -> float:
        """The last value."""
        self._settle()
        return self._val

    @property
    def avg(self) -> float:
        """The average."""
        self._settle()
        return self._avg

    @property
    def sum(self) -> float:
        """The sum of all values."""
        self._settle()
        return self._sum

    @property
    def count(self) -> int:
        """How many values there were."""
        self._settle()
        return self._count

    def _settle(self) -> None:
        if not self._pending:
            return
        tensors, numbers = zip(*self._pending, strict=True)
        self._pending = []
        values = torch.stack([t.reshape(()) for t in tensors]).tolist()  # one copy from the device
        for val, n in zip(values, numbers, strict=True):
            self._take(val, n)

    def _take(self, val: float, n: int) -> None:
        first = self._count == 0
        self._val = val
        self._sum += val * n
        self._count += n
        if not self.ema:
            self._avg = self._sum / self._count
        else:
            self._avg = val if first else 0.9 * self._avg + 0.1 * val


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
