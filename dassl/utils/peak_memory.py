"""The peak of memory of one run, in a process that may do many."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

from .lockstep import current

CLEAR = Path("/proc/self/clear_refs")  # Linux: 5 sets the peak to the memory in use now
STATUS = Path("/proc/self/status")


class PeakMemory:
    """Measures the peak of memory from when it is made.

    Nothing is known for runs side by side, which share the memory of their process; and where the
    system cannot reset the peak of a process, for the runs after the first.
    """

    _measured_before = False  # whether an earlier run of this process may have had a higher peak

    def __init__(self) -> None:
        self._alone = current() is None
        self._reset = self._alone and _reset_process()
        self._known = self._alone and (self._reset or not PeakMemory._measured_before)
        PeakMemory._measured_before = True
        torch = sys.modules.get("torch")
        if self._alone and torch and torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()

    def measured(self, device: str) -> dict[str, int]:
        """Bytes of the process's memory (``peak_memory``) and, on "cuda", of what torch allocated
        on the GPU (``peak_gpu_memory``); without what is unknown."""
        found = {"peak_memory": self._process()} if self._known else {}
        if self._alone and device == "cuda":
            import torch

            found["peak_gpu_memory"] = torch.cuda.max_memory_allocated()
        return found

    def _process(self) -> int:
        if self._reset:
            return _high_water() * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _reset_process() -> bool:
    """Reset the peak of the process; False where that is impossible."""
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")
        return _high_water() > 0
    return False


def _high_water() -> int:
    """The peak of the process since its last reset, in units of 1,024 bytes; 0 if unknown."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0
