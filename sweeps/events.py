"""What the engines tell of runs: how each one ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sweeps.plan import PlannedRun

COMPLETE, FAILED, BUSY = "complete", "failed", "busy"
RETRY_BUSY = 5.0  # seconds until a run that another process works in is looked at again


@dataclass(frozen=True)
class Outcome:
    """How a run ended; busy: another process works in its folder, so look again later."""

    status: str
    seconds: float = 0.0  # 0: it was complete before
    error: str = ""


Attempt = Callable[[PlannedRun], Outcome]  # does one run; must be importable in another process


@dataclass(frozen=True)
class Events:
    """What to call when a run starts, and once when it has ended."""

    started: Callable[[PlannedRun], None]
    ended: Callable[[PlannedRun, Outcome], None]


def unmet(run: PlannedRun, outcomes: dict[Path, Outcome]) -> Outcome | None:
    """The failure of a run whose required run has failed."""
    need = outcomes.get(run.needs) if run.needs else None
    if need and need.status == FAILED:
        return Outcome(FAILED, error=f"it needs {run.needs}, which failed")
    return None
