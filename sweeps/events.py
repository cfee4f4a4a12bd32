"""How runs end, and the functions that engines call when they start and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .planned_run import PlannedRun

COMPLETE, FAILED, BUSY = "complete", "failed", "busy"
RETRY_BUSY = 5.0  # seconds until a run that another process works on is tried again


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended; busy: another process works in its folder, so it is tried again."""

    status: str
    seconds: float = 0.0  # 0 for a run that was complete before
    error: str = ""  # of a run that was complete before: why its data could not be compared


RunOne = Callable[[PlannedRun], RunOutcome]  # does one run; must be importable in another process


@dataclass(frozen=True)
class Events:
    """Functions to call when a run starts, and once when it has ended."""

    started: Callable[[PlannedRun], None]
    ended: Callable[[PlannedRun, RunOutcome], None]


def failed_dependency(run: PlannedRun, outcomes: dict[Path, RunOutcome]) -> RunOutcome | None:
    """The failure of a run that needs another one which failed; None otherwise."""
    need = outcomes.get(run.needs) if run.needs else None
    if need and need.status == FAILED:
        return RunOutcome(FAILED, error=f"it needs {run.needs}, which failed")
    return None
