"""Running averages for the lines of a log."""

from __future__ import annotations

from collections import defaultdict

import torch


class AverageMeter:
    """Last value and mean of a number."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Delete all values."""
        self._val = self._sum = 0.0
        self._count = 0
        self._pending: list[tuple[torch.Tensor, int]] = []

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        """Add a value with weight ``n``, such as the mean over a batch of n.

        Tensors are read only when a number is needed, since reading from a GPU synchronizes.
        """
        if isinstance(val, torch.Tensor):
            self._pending.append((val.detach(), n))
        else:
            self._settle()
            self._add(val, n)

    @property
    def val(self) -> float:
        """The last value."""
        self._settle()
        return self._val

    @property
    def avg(self) -> float:
        """The mean."""
        self._settle()
        return self._sum / self._count if self._count else 0.0

    @property
    def sum(self) -> float:
        """The sum of all values."""
        self._settle()
        return self._sum

    @property
    def count(self) -> int:
        """The number of values."""
        self._settle()
        return self._count

    def _settle(self) -> None:
        if not self._pending:
            return
        tensors, numbers = zip(*self._pending, strict=True)
        self._pending = []
        values = torch.stack([t.reshape(()) for t in tensors]).tolist()  # one copy from the device
        for val, n in zip(values, numbers, strict=True):
            self._add(val, n)

    def _add(self, val: float, n: int) -> None:
        self._val = val
        self._sum += val * n
        self._count += n


class MetricMeter:
    """An :class:`AverageMeter` per name, printed as ``loss 0.1234 (0.2345)``: last and mean."""

    def __init__(self, delimiter: str = " "):
        self.delimiter = delimiter
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)

    def update(self, input_dict: dict[str, float | torch.Tensor] | None) -> None:
        """Add one value per name; None adds nothing."""
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
