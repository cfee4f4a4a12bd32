"""One run after the other, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from sweeps.plan import PlannedRun

from .events import BUSY, RETRY_BUSY, Events, RunOne, RunOutcome, failed_dependency


def run_serial(runs: Sequence[PlannedRun], run_one: RunOne, events: Events) -> None:
    """Do the runs in their order; those that other processes work on come last."""
    outcomes: dict[Path, RunOutcome] = {}
    waiting = list(runs)
    while waiting:
        busy = []
        for run in waiting:
            outcome = failed_dependency(run, outcomes)
            if outcome is None and run.needs in {other.folder for other in busy}:
                outcome = RunOutcome(BUSY)
            if outcome is None:
                events.started(run)
                outcome = run_one(run)
            if outcome.status == BUSY:
                busy.append(run)
                continue
            outcomes[run.folder] = outcome
            events.ended(run, outcome)
        waiting = busy
        if waiting:
            time.sleep(RETRY_BUSY)
