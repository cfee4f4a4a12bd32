"""Run a grid of methods, datasets, backbones, shots and seeds; report it.

    python sweep.py configs/sweeps/demo.yaml

Complete runs are not repeated and interrupted ones continue: the same command finishes a sweep.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import datasets  # noqa: F401  (its classes are imported when their names are looked up)
import trainers  # noqa: F401  (likewise)
from dassl.utils import UserError
from dassl.utils.command_line import Parser, path, run_program
from results.drawing import check_suffix
from results.read import read_run
from sweeps.check import (
    check_configurations,
    check_keys,
    check_sources,
    check_trainers,
    mark_other_configurations,
)
from sweeps.cluster import ENGINES
from sweeps.estimate import Estimate
from sweeps.grouping import write_groups
from sweeps.plan import read_sweep
from sweeps.processes import preparing_workers
from sweeps.run import read_unselected, report, run_all
from sweeps.side_by_side import parse_together
from sweeps.status import failure_lines, other_lines, plan_lines, status_lines

ROOT = Path(__file__).parent
WORKER_MODULES = (  # what takes time to import
    *("train", "trainers._base", "datasets._core.base", "dassl.engine.build"),
    *("tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.record_writer"),
)
EPILOG = """\
examples:
  python sweep.py configs/sweeps/demo.yaml  # needs no data or weights
  python sweep.py configs/sweeps/few_shot.yaml --cluster local \\
      DATASET.ROOT DATA
  python sweep.py configs/sweeps/few_shot.yaml \\
      --only "method=CoOp-CA,shots=1|4"

A sweep runs what is missing: the same command continues it.

exit codes: 0 all runs are complete, 1 some are not, 2 the command is refused
"""
ONLY = "run a part of the grid, in quotes; keys: method, dataset, backbone, shots, seed"
WORKERS = "with --cluster local: processes (default: one per GPU, or core up to 4)"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``.

    Raises:
        UserError: an unknown flag, or a value that a flag does not take.
    """
    parser = Parser(
        prog="sweep.py",
        description="Run a grid of methods, datasets, backbones, shots and seeds; report it.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("sweep", metavar="YAML", type=path, help="the grid, such as configs/sweeps/demo.yaml")
    add(
        "--output-dir",
        default="",
        metavar="DIR",
        type=path,
        help="folder of the runs (default: the YAML's)",
    )
    add(
        "--methods",
        default="",
        metavar="A,B,...",
        help="methods to run, or all (default: those not optional)",
    )
    add("--only", default="", metavar="KEY=A|B,...", help=ONLY)
    add("--retry-failed", action="store_true", help="also repeat the runs that failed before")
    add("--cluster", choices=ENGINES, help="where to run (default: the YAML's, or debug)")
    add("--workers", type=int, default=0, metavar="N", help=WORKERS)
    add(
        "--together",
        metavar="N",
        help="runs per process that share text passes, or auto (default 1)",
    )
    shown = parser.add_argument_group("print information, and exit")
    shown.add_argument("--dry-run", action="store_true", help="runs, and their commands")
    shown.add_argument(
        "--status", action="store_true", help="runs that are not complete, and time left"
    )
    group = parser.add_argument_group("write a sweep over groups of tasks, instead of running")
    add = group.add_argument
    add("--group-by", metavar="DIR", type=path, help="joint runs with TRAIN.TASK_GRADIENTS")
    add("--groups", type=int, default=3, metavar="N", help="largest number of groups (default 3)")
    add("--out", metavar="FILE", type=path, help="the YAML to write")
    parser.add_overrides("configuration keys and values, for every run")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Run what is missing and report; the exit code.

    Raises:
        UserError: the YAML or an override cannot be used.
    """
    if args.group_by or args.out:
        if not (args.group_by and args.out):
            raise UserError("--group-by DIR and --out FILE go together; give both or neither")
        print(write_groups(args.sweep, args.group_by, args.groups, args.out))
        return 0
    configs = Path("configs") if Path("configs").is_dir() else ROOT / "configs"
    sweep = read_sweep(args.sweep, args.opts, args.output_dir, configs, args.methods)
    check_trainers(sweep.planned)
    sweep = sweep.only(args.only)
    flags = {"engine": args.cluster, "workers": args.workers, "together": args.together}
    cluster = replace(sweep.cluster, **{key: value for key, value in flags.items() if value})
    cluster = replace(cluster, together=parse_together(cluster.together))
    sweep = replace(sweep, cluster=cluster)
    records = [read_run(planned.folder) for planned in sweep.runs]
    if not args.dry_run:  # which imports no torch
        records = mark_other_configurations(sweep.runs, records)
    estimate = Estimate()
    for planned, record in zip(sweep.runs, records, strict=True):
        estimate.add(planned, record.seconds if record.complete else None)
    if args.dry_run:
        check_keys(sweep.runs)
        print("\n".join(plan_lines(sweep, records, estimate)))
        return 0
    if args.status:
        print("\n".join(status_lines(sweep, records, estimate)))
        return 0 if all(record.complete for record in records) else 1
    if figure := sweep.report.get("figure"):
        check_suffix(figure)
    unselected = read_unselected(sweep)
    missing = [p for p, record in zip(sweep.runs, records, strict=True) if not record.complete]
    forks = missing and cluster.engine == "local"
    with preparing_workers(WORKER_MODULES) if forks else nullcontext():
        check_configurations(missing)
        check_sources(missing)
    results, failures = run_all(sweep, records, estimate, train_once, args.retry_failed)
    pairs = zip(results, records, strict=True)
    report(sweep, results, unselected, any(new.complete > old.complete for new, old in pairs))
    for line in [*other_lines(sweep, records), *failure_lines(failures)]:
        print(line)
    return 0 if all(record.complete for record in results) else 1


def train_once(argv: Sequence[str]) -> None:
    """Run train.py in this process; the loaded backbone stays for the next run."""
    import train

    train.main(train.parse_args(list(argv)))


def command(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    stopped = "\ninterrupted: the same command continues from here"
    return run_program(
        lambda: main(parse_args(argv)), argv, interrupted=stopped, outlives_terminal=True
    )


if __name__ == "__main__":
    from sweep import command  # so that other processes find its functions under this name

    sys.exit(command())
