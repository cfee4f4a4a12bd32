"""Run a grid of methods, shots and seeds, and report it as a table and a figure.

    python sweep.py configs/sweeps/demo.yaml

What is complete is not run again, what was interrupted goes on: the same command finishes a sweep.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from dassl.results.aggregate import aggregate
from dassl.results.figure import draw_curves
from dassl.results.plan import PlannedRun, Sweep, read_sweep
from dassl.results.read import Run, make_run, read_run
from dassl.results.record import Interrupted
from dassl.results.table import format_table
from dassl.utils import UserError, atomic_path

ROOT = Path(__file__).parent
EPILOG = """\
exit codes: 0 every run is complete, 1 a run failed or is not complete, 2 wrong command
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = argparse.ArgumentParser(
        prog="sweep.py",
        description="Run a grid of methods, shots and seeds; write a table and a figure.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", metavar="YAML", help="the grid, such as configs/sweeps/demo.yaml")
    parser.add_argument("--output-dir", default="", metavar="DIR", help="instead of the YAML's")
    parser.add_argument(
        "--methods", default="", metavar="NAMES", help="all, or names with commas between them"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the runs, and stop")
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
    if args.dry_run:
        print("\n".join(_plan_lines(sweep)))
        return 0
    results, failures = run_all(sweep)
    report(sweep, results)
    for run, error in failures:
        named = str(run.folder) in error
        print(f"failed: {run}: {error}{'' if named else f' (see {run.folder})'}")
    return 0 if all(run.complete for run in results) else 1


def _plan_lines(sweep: Sweep) -> list[str]:
    lines = []
    for run in sweep.runs:
        status = read_run(run.folder).status
        lines += [f"{run}: {status}", f"  python train.py {' '.join(map(_quoted, run.argv))}"]
    return [*lines, f"{len(sweep.runs)} runs below {sweep.output}"]


def _quoted(word: str) -> str:
    return f"'{word}'" if set(word) & set(" ()[]*'\"") or not word else word


def run_all(sweep: Sweep) -> tuple[list[Run], list[tuple[PlannedRun, str]]]:
    """Run the sweep; returns a record per planned run, and the failures with their errors."""
    import train  # imports every method, the datasets and CLIP

    results, failures = [], []
    with _progress(sweep) as (announce, finished):
        for planned in sweep.runs:
            announce(planned)
            result, seconds, error = _run(train, planned)
            results.append(result)
            if error:
                failures.append((planned, error))
            finished(result, seconds, error)
            gc.collect()  # the models of the run, before the next one needs the memory
    return _with_suites(results, sweep.runs), failures


def _run(train, planned: PlannedRun) -> tuple[Run, float, str]:
    """One run: what it gave, its seconds (0: complete before), its error if it failed.

    A failed one is reported as such, whatever an earlier run left in its folder.
    """
    started = time.monotonic()
    named = {"method": planned.method, "shots": planned.shots, "seed": planned.seed}
    try:
        was_complete = read_run(planned.folder).complete
        content = train.main(train.parse_args(list(planned.argv)))
        result = replace(make_run(planned.folder, content), **named)
    except (Exception, SystemExit) as error:  # argparse exits when it refuses
        failed = Run(planned.folder, "failed", **named)
        return failed, time.monotonic() - started, _message(error)
    return result, 0.0 if was_complete else time.monotonic() - started, ""


def _with_suites(results: list[Run], planned: Sequence[PlannedRun]) -> list[Run]:
    """The runs with the suite filled in where a failed one does not tell."""
    known = {p.dataset: run.suite for run, p in zip(results, planned, strict=True) if run.suite}
    return [
        run if run.suite else replace(run, suite=known.get(p.dataset, p.dataset))
        for run, p in zip(results, planned, strict=True)
    ]


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "train.py refused its arguments"
    text = str(error).strip().split("\n")[0] or "no message"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def _progress(sweep: Sweep) -> Iterator[tuple[Callable, Callable]]:
    """Two functions: announce a run, and say how it ended."""
    clock = _Clock(len(sweep.runs))
    if sys.stdout.isatty():
        with _bar(clock) as functions:
            yield functions
        return

    def announce(planned: PlannedRun) -> None:
        print(f"[{clock.done + 1}/{clock.total}] {planned} ...", end=" ", flush=True)

    def finished(result: Run, seconds: float, error: str) -> None:
        clock.count(seconds)
        took = f" in {seconds:.0f} s" if seconds else " before"
        print(f"{result.status}{took if result.complete else ''}{error and ': '}{error}; {clock}")

    yield announce, finished


class _Clock:
    """Counts runs and guesses the time that the rest will take."""

    def __init__(self, total: int):
        self.total, self.done, self.times = total, 0, []
        self.started = time.monotonic()

    def count(self, seconds: float) -> None:
        """A run is over; 0 seconds: it was complete before."""
        self.done += 1
        if seconds:
            self.times.append(seconds)

    @property
    def left(self) -> str:
        """Time left, if the other runs take as long as those so far."""
        if self.done == self.total:
            return "0:00:00"
        if not self.times:
            return "?"
        mean = sum(self.times) / len(self.times)
        return str(timedelta(seconds=round(mean * (self.total - self.done))))

    def __str__(self) -> str:
        elapsed = timedelta(seconds=round(time.monotonic() - self.started))
        return f"elapsed {elapsed}, left about {self.left}"


@contextlib.contextmanager
def _bar(clock: _Clock) -> Iterator[tuple[Callable, Callable]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[clock]}"),
        TextColumn("{task.description}"),
    )
    # The console keeps the real stdout: a run's log takes its place while it lasts.
    console = Console(file=sys.stdout)
    with Progress(*columns, console=console, redirect_stdout=False, refresh_per_second=2) as bar:
        task = bar.add_task("", total=clock.total, clock=clock)

        def announce(planned: PlannedRun) -> None:
            bar.update(task, description=str(planned))

        def finished(result: Run, seconds: float, error: str) -> None:
            clock.count(seconds)
            if error:
                console.print(f"failed: {result.folder}: {error}", markup=False, highlight=False)
            bar.update(task, completed=clock.done)

        yield announce, finished


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
    sys.exit(command())
