"""What a sweep will do, how far it is, and how long the rest takes, in lines to print."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from dassl.utils import counted
from results.read import NO_FILE, Run
from results.record import is_locked

from .check import OTHER
from .estimate import Estimate
from .events import COMPLETE, RunOutcome
from .plan import Sweep
from .planned_run import PlannedRun
from .processes import default_workers

LISTED = 3  # runs of one method and status that are listed one by one; more are counted


def plan_lines(sweep: Sweep, records: Sequence[Run], estimate: Estimate) -> list[str]:
    """Every planned run with its status and its command, and the totals."""
    lines = []
    for run, record in zip(sweep.runs, records, strict=True):
        lines += [
            f"{run}: {_status(run, record)}",
            f"  python train.py {shlex.join(run.argv)}",
        ]
    return [*lines, summary(sweep, records, estimate)]


def status_lines(sweep: Sweep, records: Sequence[Run], estimate: Estimate) -> list[str]:
    """The runs that are not complete, those of a method with one status together; the totals."""
    texts = [
        (run, f"{_status(run, record)}{f': {record.error}' if record.error else ''}")
        for run, record in zip(sweep.runs, records, strict=True)
        if not record.complete
    ]
    totals = Counter(run.method for run in sweep.runs)
    lines = []
    for text, runs in _by_text(texts):
        method = runs[0].method
        if len(runs) > LISTED:
            lines.append(f"{method}: {len(runs)} of {counted(totals[method], 'run')} {text}")
        else:
            lines += [f"{run}: {text}" for run in runs]
    return [*lines, summary(sweep, records, estimate)]


def failure_lines(failures: Sequence[tuple[PlannedRun, str]]) -> list[str]:
    """The runs that failed, with their errors; those of a method with one error in one line."""
    lines = []
    for error, runs in _by_text(failures):
        run = runs[0]
        more = f"{counted(len(runs), 'run')} of {run.method}, such as " if len(runs) > 1 else ""
        places = [place for place in (run.folder / "log.txt", run.folder) if place.exists()]
        hint = f" (see {places[0]})" if places and str(run.folder) not in error else ""
        lines.append(f"failed: {more}{run}: {error}{hint}")
    return lines


def unchecked_lines(outcomes: Sequence[tuple[PlannedRun, RunOutcome]]) -> list[str]:
    """A line on the complete runs whose data or weights could not be compared, for each reason."""
    reasons: dict[str, list[PlannedRun]] = {}
    for run, outcome in outcomes:
        if outcome.status == COMPLETE and outcome.error:
            reasons.setdefault(outcome.error, []).append(run)
    return [
        f"{counted(len(runs), 'complete run')}, such as {runs[0]}, not compared with the present "
        f"data and weights: {reason}"
        for reason, runs in reasons.items()
    ]


def _by_text(texts: Sequence[tuple[PlannedRun, str]]) -> list[tuple[str, list[PlannedRun]]]:
    """Runs of one method with equal texts together, in the order of the first ones."""
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run, text in texts:
        groups.setdefault((run.method, text), []).append(run)
    return [(text, runs) for (_, text), runs in groups.items()]


def _status(run: PlannedRun, record: Run) -> str:
    """The status of a run, in words."""
    if record.status in ("complete", OTHER):
        return record.status
    if is_locked(run.folder):
        return "running"
    words = {NO_FILE: "not started", "running": "killed; it continues from its last stored epoch"}
    return words.get(record.status, record.status)


def other_lines(sweep: Sweep, records: Sequence[Run]) -> list[str]:
    """A line on the runs whose record is of another configuration, if there are any."""
    others = [pair for pair in zip(sweep.runs, records, strict=True) if pair[1].status == OTHER]
    if not others:
        return []
    run, record = others[0]
    return [
        f"not started, since their folders hold runs of another configuration: "
        f"{counted(len(others), 'run')}, such as {run} in {run.folder} ({record.error}); delete "
        "these folders, or choose another --output-dir"
    ]


def summary(sweep: Sweep, records: Sequence[Run], estimate: Estimate) -> str:
    """Number of runs, of complete and of failed ones, and the time that the rest takes."""
    counts, shown = Counter(record.status for record in records), ("complete", "failed", OTHER)
    done = ", ".join(f"{counts[key]} {key}" for key in shown if counts[key])
    left = [
        run
        for run, record in zip(sweep.runs, records, strict=True)
        if record.status not in ("complete", OTHER)
    ]
    known = left and estimate.n  # the number of workers may need torch, to count GPUs
    guess = estimate.left(left, num_workers(sweep)) if known else None
    about = ""
    if guess is not None:
        runs = counted(estimate.n, "complete run")
        about = f"; about {timedelta(seconds=round(guess))} left, from {runs}"
    return (
        f"{counted(len(records), 'run')} below {sweep.output}{f', {done}' if done else ''}{about}"
    )


def num_workers(sweep: Sweep) -> int:
    """Number of runs done at once."""
    cluster = sweep.cluster
    if cluster.engine == "local":
        return default_workers(cluster.workers)
    return cluster.jobs if cluster.engine == "slurm" else 1
