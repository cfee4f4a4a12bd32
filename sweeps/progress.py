"""The progress of a sweep: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from dassl.utils import counted

from .estimate import Estimate
from .events import COMPLETE, FAILED, Events, RunOutcome
from .planned_run import PlannedRun


@contextlib.contextmanager
def progress(
    runs: Sequence[PlannedRun],
    before: Collection[Path],
    estimate: Estimate,
    workers: int,
    alone: bool,
) -> Iterator[Events]:
    """Functions that print when a run starts and ends: plain lines, or a bar on a terminal.

    Args:
        before: folders of the runs that are complete already, which have one line together.
        workers: number of runs done at once.
        alone: runs are done one at a time; a line starts with the run and ends with its result.
    """
    clock = _Clock(runs, before, estimate, workers)
    if sys.stdout.isatty():
        with _bar(clock) as events:
            yield events
        return

    def started(run: PlannedRun) -> None:
        clock.start(run)
        if alone and run.folder not in clock.before:
            print(f"[{clock.done + 1}/{clock.total}] {run} ...", end=" ", flush=True)

    def ended(run: PlannedRun, outcome: RunOutcome) -> None:
        shown = alone and run.folder in clock.running and run.folder not in clock.before
        nothing_done = run.folder in clock.before and outcome.status == COMPLETE
        clock.end(run, outcome)
        if nothing_done:
            if not clock.before:
                complete = counted(clock.complete_before, "run")
                print(f"[{clock.done}/{clock.total}] {complete} complete before; {clock}")
            return
        if not shown:
            print(f"[{clock.done}/{clock.total}] {run} ...", end=" ")
        took = f" in {outcome.seconds:.0f} s" if outcome.seconds else " before"
        ending = took if outcome.status == COMPLETE else f": {clock.error(run, outcome)}"
        print(f"{outcome.status}{ending}; {clock}", flush=True)

    yield Events(started, ended)


class _Clock:
    """Counts runs and estimates the time of the rest.

    Args:
        before: folders of the runs that are complete already, and take no time.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        before: Collection[Path],
        estimate: Estimate,
        workers: int,
    ):
        self.total, self.done, self.failed, self.complete_before = len(runs), 0, 0, 0
        self.before = {run.folder for run in runs if run.folder in before}
        self.waiting = {run.folder: run for run in runs if run.folder not in before}
        self.running: set[Path] = set()
        self.estimate, self.workers = estimate, workers
        self.failures: dict[str, PlannedRun] = {}  # the first run of each error
        self.begun = time.monotonic()

    def start(self, run: PlannedRun) -> None:
        """Count a run as running."""
        self.running.add(run.folder)

    def end(self, run: PlannedRun, outcome: RunOutcome) -> None:
        """Count a run as done."""
        self.done += 1
        self.failed += outcome.status == "failed"
        self.running.discard(run.folder)
        self.waiting.pop(run.folder, None)
        if run.folder in self.before:
            self.before.remove(run.folder)
            self.complete_before += outcome.status == COMPLETE
        elif outcome.status == COMPLETE:
            self.estimate.add(run, outcome.seconds)

    def error(self, run: PlannedRun, outcome: RunOutcome) -> str:
        """The error of a run; if another one has failed with the same, the name of that one."""
        first = self.failures.setdefault(outcome.error, run)
        return outcome.error if first is run else f"like {first}"

    @property
    def left(self) -> str:
        """Estimated time of the rest, or "?"."""
        seconds = self.estimate.left(self.waiting.values(), self.workers)
        return "?" if seconds is None else str(timedelta(seconds=round(seconds)))

    def __str__(self) -> str:
        elapsed = timedelta(seconds=round(time.monotonic() - self.begun))
        failed = f"{self.failed} failed, " if self.failed else ""
        return f"{failed}elapsed {elapsed}, left about {self.left}"


@contextlib.contextmanager
def _bar(clock: _Clock) -> Iterator[Events]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[clock]}"),
        TextColumn("{task.description}"),
    )
    # The console keeps the real stdout, which a run replaces by its log for a while.
    console = Console(file=sys.stdout)
    with Progress(*columns, console=console, redirect_stdout=False, refresh_per_second=2) as bar:
        task = bar.add_task("", total=clock.total, clock=clock)

        def started(run: PlannedRun) -> None:
            clock.start(run)
            more = len(clock.running) - 1
            bar.update(task, description=f"{run}{f' and {more} more' if more else ''}")

        def ended(run: PlannedRun, outcome: RunOutcome) -> None:
            clock.end(run, outcome)
            if outcome.status == FAILED:
                text = f"failed: {run.folder}: {clock.error(run, outcome)}"
                console.print(text, markup=False, highlight=False)
            bar.update(task, completed=clock.done)

        yield Events(started, ended)
