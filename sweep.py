"""Run a grid of methods, datasets, backbones, shots and seeds; report it.

    python sweep.py configs/sweeps/demo.yaml

What is complete is not run again, what was interrupted goes on: the same command finishes a sweep.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

from dassl.utils import UserError, atomic_path
from results.aggregate import aggregate
from results.few_shot_curves import draw_curves
from results.read import Run, read_run
from results.record import Busy, Interrupted, is_locked
from results.tables import format_table
from sweeps import Estimate, Events, Outcome, run_pool, run_serial, run_slurm
from sweeps.plan import ENGINES, PlannedRun, Sweep, read_sweep
from sweeps.pool import default_workers
from sweeps.progress import progress

ROOT = Path(__file__).parent
EPILOG = """\
exit codes: 0 every run is complete, 1 a run failed or is not complete, 2 wrong command
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = argparse.ArgumentParser(
        prog="sweep.py",
        description="Run a grid of methods, datasets, backbones, shots and seeds; report it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", metavar="YAML", help="the grid, such as configs/sweeps/demo.yaml")
    parser.add_argument("--output-dir", default="", metavar="DIR", help="instead of the YAML's")
    parser.add_argument(
        "--methods", default="", metavar="NAMES", help="all, or names with commas between them"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the runs, and stop")
    parser.add_argument("--status", action="store_true", help="show what is complete, and stop")
    parser.add_argument("--retry-failed", action="store_true", help="run again what has failed")
    parser.add_argument(
        "--only",
        default="",
        metavar="KEY=A|B,...",
        help="a part: keys method, dataset, backbone, shots, seed",
    )
    parser.add_argument("--cluster", choices=ENGINES, help="where to run, instead of the YAML's")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes of local")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys of every run")
    args, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("--")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.opts = [*args.opts, *rest]  # values such as -1 look like flags to argparse
    return args


def main(args: argparse.Namespace) -> int:
    """Run what is missing and report; the exit code.

    Raises:
        UserError: the YAML or an override cannot be used.
    """
    configs = Path("configs") if Path("configs").is_dir() else ROOT / "configs"
    sweep = read_sweep(args.sweep, args.opts, args.output_dir, configs, args.methods)
    sweep = sweep.only(args.only)
    cluster = {"engine": "debug", **sweep.cluster}
    cluster |= {k: v for k, v in (("engine", args.cluster), ("workers", args.workers)) if v}
    sweep = replace(sweep, cluster=cluster)
    records = [read_run(run.folder) for run in sweep.runs]
    estimate = Estimate()
    for run, record in zip(sweep.runs, records, strict=True):
        estimate.add(run, record.seconds if record.complete else None)
    if args.dry_run:
        print("\n".join(_plan_lines(sweep, records, estimate)))
        return 0
    if args.status:
        print("\n".join(_status_lines(sweep, records, estimate)))
        return 0 if all(record.complete for record in records) else 1
    results, failures = run_all(sweep, records, estimate, args.retry_failed)
    report(sweep, results)
    for run, error in failures:
        named = str(run.folder) in error
        print(f"failed: {run}: {error}{'' if named else f' (see {run.folder})'}")
    return 0 if all(run.complete for run in results) else 1


def _plan_lines(sweep: Sweep, records: Sequence[Run], estimate: Estimate) -> list[str]:
    lines = []
    for run, record in zip(sweep.runs, records, strict=True):
        lines += [
            f"{run}: {record.status}",
            f"  python train.py {shlex.join(run.argv)}",
        ]
    return [*lines, _summary(sweep, records, estimate)]


def _status_lines(sweep: Sweep, records: Sequence[Run], estimate: Estimate) -> list[str]:
    """What is not complete, run by run, and the sum."""
    lines = []
    for run, record in zip(sweep.runs, records, strict=True):
        if not record.complete:
            status = record.status
            if is_locked(run.folder):
                status = "running"
            elif status == "running":
                status = "stopped without a word; it goes on from its last epoch"
            lines.append(f"{run}: {status}{f': {record.error}' if record.error else ''}")
    return [*lines, _summary(sweep, records, estimate)]


def _summary(sweep: Sweep, records: Sequence[Run], estimate: Estimate) -> str:
    """How many runs there are, how many complete or failed, how long the rest will take."""
    counts = Counter(record.status for record in records)
    done = ", ".join(f"{counts[key]} {key}" for key in ("complete", "failed") if counts[key])
    left = [run for run, record in zip(sweep.runs, records, strict=True) if not record.complete]
    guess = estimate.left(left, _workers(sweep)) if left else None
    about = ""
    if guess is not None:
        about = f"; about {timedelta(seconds=round(guess))} left, from {estimate.n} complete runs"
    return f"{len(records)} runs below {sweep.output}{f', {done}' if done else ''}{about}"


def _workers(sweep: Sweep) -> int:
    """How many runs are done at once."""
    engine = sweep.cluster["engine"]
    if engine == "local":
        return default_workers(sweep.cluster.get("workers", 0))
    return sweep.cluster.get("jobs", 1) if engine == "slurm" else 1


def run_all(
    sweep: Sweep, records: Sequence[Run], estimate: Estimate, retry_failed: bool = True
) -> tuple[list[Run], list[tuple[PlannedRun, str]]]:
    """Run the sweep; returns a record per planned run, and the failures with their errors."""
    known = dict(zip((run.folder for run in sweep.runs), records, strict=True))
    outcomes: dict[Path, Outcome] = {}
    todo = []
    for run in sweep.runs:
        if known[run.folder].status == "failed" and not retry_failed:
            error = f"{known[run.folder].error}; it failed before: --retry-failed runs it again"
            outcomes[run.folder] = Outcome("failed", error=error)
        else:
            todo.append(run)
    print(_summary(sweep, records, estimate), flush=True)
    alone = sweep.cluster["engine"] == "debug"
    with progress(todo, estimate, _workers(sweep), alone) as events:

        def ended(run: PlannedRun, outcome: Outcome) -> None:
            outcomes[run.folder] = outcome
            events.ended(run, outcome)

        _engine(sweep, todo, Events(events.started, ended))
    results = [_result(run, outcomes[run.folder]) for run in sweep.runs]
    failures = [(r, outcomes[r.folder].error) for r in sweep.runs if outcomes[r.folder].error]
    return _with_suites(results, sweep.runs), failures


def _engine(sweep: Sweep, runs: Sequence[PlannedRun], events: Events) -> None:
    engine = sweep.cluster["engine"]
    if engine == "local":
        run_pool(runs, attempt, events, _workers(sweep))
    elif engine == "slurm":
        run_slurm(runs, attempt, events, sweep.output, sweep.cluster)
    else:
        run_serial(runs, attempt, events)


def attempt(planned: PlannedRun) -> Outcome:
    """One run, in this process: how it ended."""
    import train  # every method, the datasets and CLIP, which stays loaded for the next run

    _keep_what_is_loaded()
    started = time.monotonic()
    try:
        was_complete = read_run(planned.folder).complete
        train.main(train.parse_args(list(planned.argv)))
    except Busy:
        return Outcome("busy")
    except SystemExit as error:
        if error.code != 2:  # not argparse's
            raise
        return Outcome("failed", time.monotonic() - started, "train.py refused its arguments")
    except Exception as error:
        return Outcome("failed", time.monotonic() - started, _message(error))
    finally:
        gc.collect()  # the models of the run, before the next one needs the memory
    return Outcome("complete", 0.0 if was_complete else time.monotonic() - started)


@cache
def _keep_what_is_loaded() -> None:
    """Once: what is there now stays, and need not be looked at after every run."""
    gc.freeze()


def _result(planned: PlannedRun, outcome: Outcome) -> Run:
    """The record of a run under the sweep's names.

    A failed one is reported as such, whatever an earlier run left in its folder.
    """
    named = {"method": planned.method, "shots": planned.shots, "seed": planned.seed}
    if outcome.status == "failed":
        return Run(planned.folder, "failed", error=outcome.error, **named)
    return replace(read_run(planned.folder), **named)


def _with_suites(results: list[Run], planned: Sequence[PlannedRun]) -> list[Run]:
    """The runs with the suite filled in where a failed one does not tell."""
    known = {p.dataset: run.suite for run, p in zip(results, planned, strict=True) if run.suite}
    return [
        run if run.suite else replace(run, suite=known.get(p.dataset, p.dataset))
        for run, p in zip(results, planned, strict=True)
    ]


def _message(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0] or "no message"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def report(sweep: Sweep, results: list[Run]) -> None:
    """Print the table; write it and the figure to the files that the YAML names."""
    rows = aggregate(results, sweep.methods)
    unfinished = [run for run in results if not run.complete]
    if len(unfinished) == len(results):
        print("no run is complete: no report")  # and the files of an earlier one stay
        return
    print()
    print(format_table(rows, "text", unfinished))
    table, figure = sweep.report.get("table"), sweep.report.get("figure")
    if table:
        text = format_table(rows, "md" if table.suffix == ".md" else "text", unfinished)
        with atomic_path(table) as path:
            path.write_text(text, encoding="utf-8")
        print(f"table: {table}")
    if figure:
        print(f"figure: {draw_curves(rows, figure)}")


def command(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        return main(parse_args(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Interrupted):
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    from sweep import command  # so that other processes find its functions under this name

    sys.exit(command())
