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
from pathlib import Path

from dassl.utils import UserError, atomic_path, shorten_list
from dassl.utils.command_line import Parser, path, run_program
from results.experiment_summary import Averaging, summarize, summarize_all
from results.extra_columns import COLUMNS, USUAL, parse_columns
from results.few_shot_curves import draw_curves
from results.figures import draw_all
from results.html_report import write_report
from results.read import OVERALL, Run, find_runs
from results.relation_figure import draw_relations
from results.rendering import FORMS, render
from results.report import Choices, Report

REPORTS = ("table", "format", "figure", "relations", "pictures")  # flags, over every run below DIR
DEFAULT_COLUMNS = ",".join(USUAL.names)
EPILOG = """\
examples:
  python parse_test_res.py output/nata  # its runs are seed1, seed2, ...
  python parse_test_res.py output --multi-exp   # each experiment in output
  python parse_test_res.py output --table md    # a row per method and shots
  python parse_test_res.py output --format html --published

Values come from the results.json of each run or, without it, from logs of
CoOp, SoftCPT and their forks. Runs that are not complete are listed and not
averaged.

exit codes: 0 all runs are complete, 1 some are not, 2 the command is refused
or no run is complete
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = Parser(
        prog="parse_test_res.py",
        description="Mean and std over the seeds of an experiment; tables of many experiments.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "directory", metavar="DIR", type=path, help="an experiment: a folder with a run per seed"
    )
    what = parser.add_argument_group("what is read and averaged").add_argument
    what("--multi-exp", action="store_true", help="DIR contains several experiments")
    what("--ci95", action="store_true", help="± 1.96 std / sqrt(n) instead of std")
    what("--sample-std", action="store_true", help="std with n - 1 instead of n")
    what("--interval", action="store_true", help="half of Student's 95 %% interval instead of std")
    what(
        "--test-log",
        action="store_true",
        help="read logs of CoOp or SoftCPT as evaluations, not as trainings",
    )
    what(
        "--keyword",
        default=OVERALL,
        metavar="K",
        help=f"value to average: {OVERALL} (default), a group, a task; macro_f1 of CoOp's logs",
    )
    _add_flags_of_reports(
        parser.add_argument_group("tables, reports and figures over every run below DIR")
    )
    args = parser.parse_args(argv)
    _check_combination(parser, args)
    return args


def _add_flags_of_reports(below: argparse._ArgumentGroup) -> None:
    below.add_argument(
        "--table", choices=("text", "md"), help="one table: a row per method and number of shots"
    )
    below.add_argument(
        "--format",
        choices=(*FORMS, "html"),
        help="a report: tables by shots and task, of base and new, paired; missing runs",
    )
    below.add_argument(
        "--published", action="store_true", help="with --format: also show published numbers"
    )
    below.add_argument(
        "--reference",
        default="",
        metavar="METHOD",
        help="with --format: the method that others are compared with",
    )
    below.add_argument(
        "--columns",
        default=DEFAULT_COLUMNS,
        metavar="NAMES",
        help=f"more columns (default {DEFAULT_COLUMNS}), of {', '.join(COLUMNS)}; or none",
    )
    below.add_argument(
        "--root",
        default="",
        metavar="DIR",
        type=path,
        help="with --format html: folder of the datasets, to show mistaken images",
    )
    below.add_argument("--out", metavar="FILE", type=path, help="also write the output to a file")
    below.add_argument(
        "--figure", metavar="FILE", type=path, help="draw few-shot curves (.png, .pdf, .svg)"
    )
    below.add_argument(
        "--relations",
        metavar="FILE",
        type=path,
        help="draw which tasks help each other (.png, .pdf, .svg)",
    )
    below.add_argument(
        "--pictures", metavar="DIR", type=path, help="draw all figures, as .png and .svg"
    )
    below.add_argument("--pdf", action="store_true", help="with --pictures: as .pdf instead")


def _check_combination(parser: Parser, args: argparse.Namespace) -> None:
    if report := _report_flag(args):
        _refuse_flags_of_one_experiment(parser, args, report)
    if args.interval and (args.sample_std or args.ci95):
        parser.error("--interval takes the place of --sample-std and --ci95; give one of them")
    if args.table and args.format:
        parser.error("--format holds what --table shows; give one of them")
    if (args.published or args.reference) and not args.format:
        parser.error("--published and --reference go with --format")
    if args.columns != DEFAULT_COLUMNS and not (args.table or args.format):
        parser.error("--columns goes with --table or --format")
    if args.pdf and not args.pictures:
        parser.error("--pdf goes with --pictures DIR")
    if args.root and args.format != "html":
        parser.error("--root goes with --format html")
    if args.root and not Path(args.root).is_dir():
        parser.error(f"--root takes the folder of the datasets, but there is no folder {args.root}")


def _report_flag(args: argparse.Namespace) -> str:
    """The first flag that asks for a report over every run below DIR; "" without one."""
    return next((f"--{name}" for name in REPORTS if getattr(args, name)), "")


def _refuse_flags_of_one_experiment(parser: Parser, args: argparse.Namespace, report: str) -> None:
    """Refuse what a report over every run below DIR does not read."""
    if args.multi_exp:
        parser.error(f"{report} reads every run below DIR by itself; leave --multi-exp out")
    if args.ci95:
        parser.error(
            f"{report} does not go with --ci95; in a table, --interval shows Student's interval"
        )
    if args.keyword != OVERALL:
        parser.error(f"{report} shows all values, not one by --keyword; leave --keyword out")


def _spread(args: argparse.Namespace) -> str:
    """What follows ±: one of SPREADS."""
    return "interval" if args.interval else "sample" if args.sample_std else "std"


def main(args: argparse.Namespace) -> int:
    """Print what the command line asks for; the exit code.

    Raises:
        UserError: nothing was found, or the runs do not belong together.
    """
    folder = Path(args.directory)
    if _report_flag(args):
        text, complete = _report_below(folder, args)
    else:
        averaging = Averaging(args.keyword, _spread(args), args.ci95, args.test_log)
        found = (summarize_all if args.multi_exp else summarize)(folder, averaging)
        text, complete = "\n".join(found.lines), found.complete
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
    extra = parse_columns(args.columns)
    choices = Choices((), _spread(args), args.reference, args.published, extra)
    report = Report(runs, choices)
    parts = []
    if args.table:
        parts.append(report.format_rows(args.table))
    elif args.format == "html":
        place = args.out or folder / "report.html"
        parts.append(f"report: {write_report(report, place, args.root)}")
    elif args.format:
        parts.append(render(report.parts(), args.format))
    elif unfinished:
        parts.append(f"not counted{_listed(unfinished)}")
    if args.figure:
        print(f"figure: {draw_curves(report.rows, args.figure)}", file=sys.stderr)
    if args.relations:
        print(f"figure: {draw_relations(runs, args.relations)}", file=sys.stderr)
    if args.pictures:
        drawn = draw_all(report.rows, args.pictures, args.pdf)
        print(f"figures: {', '.join(map(str, drawn))}", file=sys.stderr)
    return "\n".join(parts), not unfinished and not valueless


def _listed(runs: Sequence[Run]) -> str:
    return f": {shorten_list((f'{run.folder}: {run.status}' for run in runs), 10)}" if runs else ""


def command(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return run_program(lambda: main(parse_args(argv)), argv, writes_files=True)


if __name__ == "__main__":
    sys.exit(command())
