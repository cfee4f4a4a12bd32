"""All runs in this process, one after the other or several in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from .events import BUSY, RETRY_BUSY, Events, RunOne, RunOutcome, failed_dependency
from .planned_run import PlannedRun
from .side_by_side import SideBySide


def run_serial(
    runs: Sequence[PlannedRun], run_one: RunOne, events: Events, together: int = 1
) -> None:
    """Do the runs in their order; those that other processes work on come last.

    Args:
        together: how many to work on at a time, see :class:`SideBySide`.
    """
    outcomes: dict[Path, RunOutcome] = {}
    waiting, busy = list(runs), []
    with SideBySide(run_one, together) as at_work:

        def end(run: PlannedRun, outcome: RunOutcome) -> None:
            outcomes[run.folder] = outcome
            events.ended(run, outcome)

        while waiting or busy or at_work.runs:
            for run in list(waiting):
                if not at_work.has_room:
                    break
                if failure := failed_dependency(run, outcomes):
                    waiting.remove(run)
                    end(run, failure)
                elif run.needs not in {r.folder for r in [*waiting, *busy, *at_work.runs]}:
                    waiting.remove(run)
                    events.started(run)
                    at_work.start(run)
            if not at_work.runs and busy:
                time.sleep(RETRY_BUSY)
                waiting, busy = [*busy, *waiting], []
                continue
            for run, outcome in at_work.work() if at_work.runs else ():
                if outcome.status == BUSY:
                    busy.append(run)
                else:
                    end(run, outcome)
