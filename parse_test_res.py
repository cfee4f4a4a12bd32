"""Mean and spread over the seeds of an experiment; tables and figures over many experiments.

python parse_test_res.py output/run              # output/run/seed1, output/run/seed2, ...
python parse_test_res.py output/runs --multi-exp # output/runs/A/seed1, output/runs/B/seed1, ...
python parse_test_res.py output --format md --published --out tables.md
python parse_test_res.py output --format html    # output/report.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dassl.utils import UserError, atomic_path, listdir_nohidden, shorten_list, unknown_name
from dassl.utils.command_line import Parser, path, run_program
from results.aggregate import Stat, aggregate, statistic
from results.few_shot_curves import draw_curves
from results.figures import draw_all
from results.html_report import write_report
from results.logs import log_files
from results.one_experiment import check_one_experiment, print_unknown
from results.read import FILE, NO_FILE, OVERALL, Run, find_runs, read_run_or_log
from results.rendering import FORMS, render
from results.report import Choices, format_runs, report_parts

EPILOG = """\
Values come from the results.json of each run or, without it, from logs of CoOp, SoftCPT and their
forks. Runs that are not complete are listed and not counted.

exit codes: 0 all runs are complete, 1 some are not, 2 wrong command, or no complete run
"""


@dataclass(frozen=True)
class Summary:
    """The summary of one experiment: lines to print, mean of each key, whether all runs count."""

    lines: list[str]
    means: dict[str, float | None]
    complete: bool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = Parser(
        prog="parse_test_res.py",
        description="Mean and standard deviation over the seeds of an experiment.",
        epilog=EPILOG,
    )
    parser.add_argument("directory", metavar="DIR", type=path, help="runs, a subfolder per seed")
    parser.add_argument("--multi-exp", action="store_true", help="DIR holds experiments of runs")
    parser.add_argument("--ci95", action="store_true", help="1.96 std / sqrt(n) instead of std")
    parser.add_argument("--sample-std", action="store_true", help="std with n - 1 instead of n")
    parser.add_argument(
        "--interval", action="store_true", help="half of Student's 95 %% interval instead of std"
    )
    parser.add_argument(
        "--test-log",
        action="store_true",
        help="logs of CoOp or SoftCPT are evaluations (--eval-only), not trainings",
    )
    parser.add_argument(
        "--keyword",
        default=OVERALL,
        metavar="K",
        help=f"{OVERALL}, a group or a task, by name; accuracy, macro_f1, ... of CoOp's logs",
    )
    below = parser.add_argument_group("over every run below DIR")
    below.add_argument(
        "--table", choices=("text", "md"), help="one table: a row per method and number of shots"
    )
    below.add_argument(
        "--format",
        choices=(*FORMS, "html"),
        help="a report: by shots, base and new, paired, by task, missing runs",
    )
    below.add_argument(
        "--published", action="store_true", help="with --format: show published numbers beside them"
    )
    below.add_argument(
        "--reference", default="", metavar="METHOD", help="with --format: compare others with this"
    )
    below.add_argument("--out", metavar="FILE", type=path, help="also write the output to a file")
    below.add_argument(
        "--figure", metavar="FILE", type=path, help="few-shot curves (.png, .pdf, .svg)"
    )
    below.add_argument("--pictures", metavar="DIR", type=path, help="all figures, as .png and .svg")
    args = parser.parse_args(argv)
    _check_combination(parser, args)
    return args


def _check_combination(parser: Parser, args: argparse.Namespace) -> None:
    if (args.table or args.format) and (args.multi_exp or args.ci95 or args.keyword != OVERALL):
        parser.error(
            "--table goes with --sample-std, --interval, --out and --figure only; --format too"
        )
    if args.interval and (args.sample_std or args.ci95):
        parser.error("--interval takes the place of --sample-std and --ci95; give one of them")
    if args.table and args.format:
        parser.error("--format holds what --table shows; give one of them")
    if (args.published or args.reference) and not args.format:
        parser.error("--published and --reference go with --format")


def _spread(args: argparse.Namespace) -> str:
    """What follows ±: one of SPREADS."""
    return "interval" if args.interval else "sample" if args.sample_std else "std"


def main(args: argparse.Namespace) -> int:
    """Print what the command line asks for; the exit code.

    Raises:
        UserError: nothing was found, or the runs do not belong together.
    """
    folder = Path(args.directory)
    if args.table or args.format or args.figure or args.pictures:
        text, complete = _report_below(folder, args)
    elif args.multi_exp:
        text, complete = _report_experiments(folder, args)
    else:
        summary = summarize(folder, args)
        text, complete = "\n".join(summary.lines), summary.complete
    if text:
        print(text)
    if args.out and args.format != "html":
        with atomic_path(args.out) as path:
            path.write_text(f"{text.rstrip()}\n", encoding="utf-8")
    return 0 if complete else 1


def _report_below(folder: Path, args: argparse.Namespace) -> tuple[str, bool]:
    runs = find_runs(folder, args.test_log)
    unfinished = [run for run in runs if not run.complete]
    if len(unfinished) == len(runs):
        raise UserError(f"there is no complete run below {folder}{_listed(unfinished)}")
    valueless = [run for run in runs if run.complete and not run.grouped and run.overall is None]
    for run in valueless:
        print(f"not counted: {run.folder} has no value from 0 to 100", file=sys.stderr)
    rows = aggregate(runs)
    parts = []
    choices = Choices((), _spread(args), args.reference, args.published)
    if args.table:
        parts.append(format_runs(runs, args.table, spread=_spread(args)))
    elif args.format == "html":
        place = args.out or folder / "report.html"
        parts.append(f"report: {write_report(runs, choices, place)}")
    elif args.format:
        parts.append(render(report_parts(runs, choices), args.format))
    elif unfinished:
        parts.append(f"not counted{_listed(unfinished)}")
    if args.figure:
        print(f"figure: {draw_curves(rows, args.figure)}", file=sys.stderr)
    if args.pictures:
        print(f"figures: {', '.join(map(str, draw_all(rows, args.pictures)))}", file=sys.stderr)
    return "\n".join(parts), not unfinished and not valueless


def _listed(runs: Sequence[Run]) -> str:
    return f": {shorten_list((f'{run.folder}: {run.status}' for run in runs), 10)}" if runs else ""


def _report_experiments(folder: Path, args: argparse.Namespace) -> tuple[str, bool]:
    """Every subfolder's summary, and the mean over the subfolders."""
    names = [name for name in listdir_nohidden(folder) if (folder / name).is_dir()]
    summaries, lines, missing = [], [], []
    for name in names:
        try:
            summaries.append(summarize(folder / name, args))
            lines += [*summaries[-1].lines, ""]
        except _NothingFound as error:
            missing.append(f"not counted: {error}")
    if not summaries:
        raise UserError(f"there is no complete run in the subfolders of {folder}")
    lines += [*missing, f"Average performance (n = {len(summaries)} of {len(names)} experiments)"]
    keys = dict.fromkeys(key for summary in summaries for key in summary.means)
    for key in keys:
        stat = statistic(summary.means.get(key) for summary in summaries)
        partly = "" if stat.n == len(summaries) else f" (n = {stat.n})"
        lines.append(f"* {key}: {_percent(stat.mean)}{partly}")
    return "\n".join(lines), not missing and all(summary.complete for summary in summaries)


class _NothingFound(UserError):
    """An experiment without a complete run."""


def summarize(folder: Path, args: argparse.Namespace) -> Summary:
    """The summary of one experiment: a folder of seeds, or a single run.

    Raises:
        UserError: no complete run, runs of different experiments, or an unknown keyword.
    """
    runs = _runs_of(folder, args.test_log)
    complete = [run for run in runs if run.complete]
    unfinished = [run for run in runs if not run.complete]
    if not complete:
        raise _NothingFound(f"there is no complete run in {folder}{_hint(folder, runs)}")
    check_one_experiment(folder, complete)
    keys = _keys(complete[0], args.keyword)
    print_unknown(complete)
    lines = [f"Parsing {folder}"]
    for run in runs:
        values = ", ".join(f"{key}: {_percent(run.get(name))}" for key, name in keys.items())
        lines.append(f"{run.folder.name}: {values if run.complete else run.status}")
    stats = {
        key: statistic([run.get(name) for run in complete], _spread(args), args.ci95)
        for key, name in keys.items()
    }
    lines += ["===", f"Summary of directory: {folder}"]
    if complete[0].test_subset:
        lines.append(f"evaluated on {complete[0].test_subset}")
    lines += [f"* {key}: {_with_spread(stat)}" for key, stat in stats.items()]
    if args.keyword == OVERALL:
        lines += _task_lines(complete, args)
    valueless = [run for run in complete if any(run.get(k) is None for k in keys.values())]
    n = min(stat.n for stat in stats.values())
    problems = []
    if unfinished:
        named = ", ".join(f"{run.folder.name} ({run.status})" for run in unfinished)
        problems.append(f"not complete: {named}")
    if valueless:
        named = ", ".join(run.folder.name for run in valueless)
        problems.append(f"without a value from 0 to 100: {named}")
    lines += ["; ".join([f"n = {n} of {len(runs)}", *problems]) if problems else f"n = {n}", "==="]
    means = {key: stat.mean for key, stat in stats.items()}
    return Summary(lines, means, not problems)


def _runs_of(folder: Path, test_log: bool) -> list[Run]:
    if (folder / FILE).exists() or log_files(folder):
        return [read_run_or_log(folder, test_log)]
    names = [name for name in listdir_nohidden(folder) if (folder / name).is_dir()]
    return [read_run_or_log(folder / name, test_log) for name in names]


def _hint(folder: Path, runs: list[Run]) -> str:
    """A hint what the folder holds instead of complete runs."""
    deeper = next(folder.rglob(FILE), None) or next(folder.rglob("log.txt*"), None)
    if deeper and all(run.status == NO_FILE for run in runs):
        return "; the runs lie deeper: give one experiment's folder, or add --multi-exp or --table"
    return "".join(f"; {run.folder.name}: {run.status}" for run in runs) or "; it has no subfolder"


def _keys(run: Run, keyword: str) -> dict[str, str]:
    """The values to report: name in the output -> key of :meth:`Run.get`."""
    if keyword == OVERALL and run.grouped:
        return {f"{OVERALL} ({group})": group for group in run.groups}
    if keyword not in run.value_names():
        raise unknown_name("value", keyword, run.value_names())
    return {keyword: keyword}


def _task_lines(runs: list[Run], args: argparse.Namespace) -> list[str]:
    lines = []
    for name, task in runs[0].tasks.items():
        stat = statistic([run.get(name) for run in runs], _spread(args), args.ci95)
        lines.append(f"* task: {task['id']} ({task['name']}) metric: {_with_spread(stat)}")
    return lines


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}%"


def _with_spread(stat: Stat) -> str:
    return f"{_percent(stat.mean)} +- {_percent(stat.spread)}"


def command(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return run_program(lambda: _start(argv), argv)


def _start(argv: Sequence[str] | None) -> int:
    args = parse_args(argv)
    try:
        return main(args)
    except BrokenPipeError:
        raise
    except OSError as error:  # a file that cannot be written
        raise UserError(str(error)) from error


if __name__ == "__main__":
    sys.exit(command())
