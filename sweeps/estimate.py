"""How long the remaining runs will take, estimated from the complete ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from .planned_run import PlannedRun


class Estimate:
    """Mean seconds of the complete runs that are most like a given one."""

    def __init__(self):
        self._seconds: dict[tuple, list[float]] = {}
        self.n = 0

    def add(self, run: PlannedRun, seconds: float | None) -> None:
        """Count a complete run; one without a time (it was interrupted) is ignored."""
        if seconds:
            self.n += 1
            for kind in _kinds(run):
                self._seconds.setdefault(kind, []).append(seconds)

    def of(self, run: PlannedRun) -> float | None:
        """Seconds of a run; None while nothing is known."""
        for kind in _kinds(run):
            if kind in self._seconds:
                times = self._seconds[kind]
                return math.fsum(times) / len(times)
        return None

    def left(self, runs: Iterable[PlannedRun], workers: int = 1) -> float | None:
        """Seconds that the workers need for some runs; None while nothing is known."""
        times = [self.of(run) for run in runs]
        if None in times:
            return None
        return max(math.fsum(times) / max(workers, 1), max(times, default=0.0))


def _kinds(run: PlannedRun) -> Iterator[tuple]:
    """Keys of groups of runs that are like this one, from the smallest group to all runs."""
    yield run.method, run.dataset, run.backbone, run.shots, run.note
    yield run.method, run.dataset, run.backbone, run.note
    yield run.method, run.note
    yield ()
