"""Where the time of a run goes, without waiting for the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from .lockstep import now


class Stopwatch:
    """Seconds by part of the work; every moment counts for the innermost part only.

    While other runs work in turn (:mod:`dassl.utils.lockstep`), a CPU's watch stands still.

    On a GPU the moments are events in its stream, read when the sums are asked for, so that
    nothing waits for the device between them.

    Args:
        parts: names of the parts.
        device: where the work is done.
    """

    def __init__(self, parts: Sequence[str], device: torch.device | str = "cpu"):
        self._sums = dict.fromkeys(parts, 0.0)
        self._gpu = torch.device(device).type == "cuda"
        self._part: str | None = None  # what is under way; None: nothing that is measured
        self._marks: list[tuple[str | None, object]] = []  # what began, and when

    def switch(self, part: str | None) -> str | None:
        """From now on time counts for ``part``, or, if None, for none; returns the one before."""
        before, self._part = self._part, part
        if part != before:
            self._marks.append((part, self._moment()))
            if not self._gpu and len(self._marks) > 1:
                self.settle()
        return before

    @contextlib.contextmanager
    def part(self, part: str) -> Iterator[None]:
        """Time inside counts for ``part``, and afterwards for what was under way before."""
        before = self.switch(part)
        try:
            yield
        finally:
            self.switch(before)

    def seconds(self) -> dict[str, float]:
        """The sum of each part so far."""
        self.settle()
        return dict(self._sums)

    def _moment(self):
        if not self._gpu:
            return now()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def settle(self) -> None:
        """Add up all but what is under way; on a GPU, wait for it and let go of the events."""
        if self._gpu and len(self._marks) > 1:
            self._marks[-1][1].synchronize()
        for (part, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            if part is not None:
                took = start.elapsed_time(end) / 1000 if self._gpu else end - start
                self._sums[part] += took
        self._marks = self._marks[-1:]
