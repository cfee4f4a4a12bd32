"""Runs what is missing of a sweep, and reports all of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dassl.utils import UserError, atomic_path, counted
from dassl.utils.lockstep import now
from results.few_shot_curves import draw_curves
from results.read import NO_FILE, Run, read_run
from results.record import Busy, OtherRun
from results.report import Choices, Report

from .check import OTHER, mark_other_configurations
from .estimate import Estimate
from .events import BUSY, COMPLETE, FAILED, Events, RunOne, RunOutcome, failed_dependency
from .plan import Sweep
from .planned_run import PlannedRun
from .pool import run_pool
from .progress import progress
from .serial import run_serial
from .slurm import run_slurm
from .status import num_workers, other_lines, summary, unchecked_lines

Train = Callable[[Sequence[str]], object]  # train.py on a list of arguments, in this process


def run_all(
    sweep: Sweep,
    records: Sequence[Run],
    estimate: Estimate,
    train: Train,
    retry_failed: bool = True,
) -> tuple[list[Run], list[tuple[PlannedRun, str]]]:
    """Run the sweep; returns a record per planned run, and the failures with their errors.

    Runs of another configuration are not started, and are no failures.

    Args:
        records: of the selected runs, as :func:`mark_other_configurations` returns them.
        train: runs train.py; worker processes must be able to import it.
    """
    known = dict(zip((run.folder for run in sweep.runs), records, strict=True))
    before = {folder for folder, record in known.items() if record.complete}
    outcomes: dict[Path, RunOutcome] = {}
    todo = []
    for run in sweep.runs:
        failure = _known_failure(known[run.folder], retry_failed) or failed_dependency(
            run, outcomes
        )
        if failure:
            outcomes[run.folder] = failure
        else:
            todo.append(run)
    todo.sort(key=lambda run: run.folder not in before)
    print("\n".join([*other_lines(sweep, records), summary(sweep, records, estimate)]), flush=True)
    alone = sweep.cluster.engine == "debug" and sweep.cluster.together == 1
    with progress(todo, before, estimate, num_workers(sweep), alone) as events:

        def ended(run: PlannedRun, outcome: RunOutcome) -> None:
            outcomes[run.folder] = outcome
            events.ended(run, outcome)

        _engine(sweep, todo, partial(run_one, train), Events(events.started, ended))
    results = [_result(run, outcomes[run.folder], known[run.folder]) for run in sweep.runs]
    for line in unchecked_lines([(run, outcomes[run.folder]) for run in todo]):
        print(line)
    failures = [
        (run, outcomes[run.folder].error)
        for run, result in zip(sweep.runs, results, strict=True)
        if result.status == FAILED
    ]
    return results, failures


def _known_failure(record: Run, retry_failed: bool) -> RunOutcome | None:
    """Why a run is not started; None if it is."""
    if record.status == OTHER:
        return RunOutcome(FAILED, error=f"{record.folder} holds a run {OTHER}: {record.error}")
    if record.status == "failed" and not retry_failed:
        error = f"{record.error}; it failed before; --retry-failed runs it again"
        return RunOutcome(FAILED, error=error)
    return None


def _engine(sweep: Sweep, runs: Sequence[PlannedRun], run_one: RunOne, events: Events) -> None:
    cluster = sweep.cluster
    if cluster.engine == "local":
        run_pool(runs, run_one, events, num_workers(sweep), cluster.together)
    elif cluster.engine == "slurm":
        run_slurm(runs, run_one, events, sweep.output, cluster)
    else:
        run_serial(runs, run_one, events, cluster.together)


def run_one(train: Train, planned: PlannedRun) -> RunOutcome:
    """Do a run in this process; returns how it ended."""
    started = now()
    was_complete = read_run(planned.folder).complete
    try:
        train(planned.argv)
    except Busy:
        return RunOutcome(BUSY)
    except Exception as error:
        if was_complete and isinstance(error, UserError) and not isinstance(error, OtherRun):
            return RunOutcome(COMPLETE, error=_message(error))
        return RunOutcome(FAILED, now() - started, _message(error))
    finally:
        gc.collect()  # the models of the run, before the next one needs the memory
    return RunOutcome(COMPLETE, 0.0 if was_complete else now() - started)


def _result(planned: PlannedRun, outcome: RunOutcome, before: Run) -> Run:
    """The record of a run, with the sweep's names.

    A failed run is reported as failed, whatever record an earlier one left in its folder. The
    numbers of another configuration are not reported.

    Args:
        before: its record before the sweep ran.
    """
    named = {"method": planned.method, "shots": planned.shots, "seed": planned.seed}
    if before.status == OTHER:
        return Run(planned.folder, OTHER, error=before.error, **named)
    if outcome.status == FAILED:
        return Run(planned.folder, FAILED, error=outcome.error, **named)
    return replace(read_run(planned.folder), **named)


def read_unselected(sweep: Sweep) -> list[tuple[PlannedRun, Run]]:
    """The planned runs that were not selected but have a record, and that record.

    Raises:
        UserError: the configuration of one cannot be used.
    """
    selected = {planned.folder for planned in sweep.runs}
    planned = [run for run in sweep.planned if run.folder not in selected]
    records = mark_other_configurations(planned, [read_run(run.folder) for run in planned])
    return [(p, r) for p, r in zip(planned, records, strict=True) if r.status != NO_FILE]


def _with_suites(results: list[Run], planned: Sequence[PlannedRun]) -> list[Run]:
    """The runs with the suite filled in where the record of a failed one lacks it."""
    known = {p.dataset: run.suite for run, p in zip(results, planned, strict=True) if run.suite}
    return [
        run if run.suite else replace(run, suite=known.get(p.dataset, p.dataset))
        for run, p in zip(results, planned, strict=True)
    ]


def _message(error: BaseException) -> str:
    if isinstance(error, UserError):  # perhaps a list of problems
        return " ".join(str(error).split())
    text = str(error).strip().split("\n")[0] or "no message"
    return f"{type(error).__name__}: {text}"


def report(
    sweep: Sweep,
    results: list[Run],
    unselected: Sequence[tuple[PlannedRun, Run]] = (),
    trained: bool = True,
) -> None:
    """Print the table; write it and the figure to the files that the YAML names.

    Without a new result, files that exist are not replaced by ones that lack the runs of another
    configuration.

    Args:
        results: of the selected runs.
        unselected: other planned runs, and their records before the sweep ran.
        trained: whether any run was completed.
    """
    planned = [*sweep.runs, *(run for run, _ in unselected)]
    others = [_result(run, RunOutcome(COMPLETE), before) for run, before in unselected]
    results = _with_suites([*results, *others], planned)
    if not any(run.complete for run in results):
        print("no run is complete: no report")  # and the files of an earlier one stay
        return
    print()
    found = Report(results, Choices(tuple(sweep.methods), sweep.spread))
    print(found.format_rows("text"))
    lacking = sum(run.status == OTHER for run in results)
    files = [file for file in (sweep.report.get("table"), sweep.report.get("figure")) if file]
    existing = [str(file) for file in files if file.exists()]
    if lacking and existing and not trained:
        print(
            f"not replaced: {' and '.join(existing)}, since no run was completed now, and "
            f"{counted(lacking, 'run')} of another configuration would be missing in the new files"
        )
        return
    _write_report(sweep, found)


def _write_report(sweep: Sweep, found: Report) -> None:
    """Write the table and the figure that the YAML names."""
    table, figure = sweep.report.get("table"), sweep.report.get("figure")
    if table:
        text = found.format_rows("md" if table.suffix == ".md" else "text")
        with atomic_path(table) as path:
            path.write_text(text, encoding="utf-8")
        print(f"table: {table}")
    if figure and not any(row.runs for row in found.rows):
        print("figure: not drawn, since the runs of this protocol have no few-shot curve")
    elif figure:
        print(f"figure: {draw_curves(found.rows, figure)}")
