"""Inspect datasets before training on them.

    python -m datasets list                          all datasets and suites
    python -m datasets check OxfordPets --root DATA  numbers, splits, missing images; --deep decodes
    python -m datasets show OxfordPets --root DATA   a contact sheet
    python -m datasets shots OxfordPets --root DATA --export FILE DATASET.NUM_SHOTS 16 SEED 1
    python -m datasets make-mini General10 DATA      a miniature, to try things without a download

Instead of a name, give a YAML such as configs/datasets/suite.yaml; KEY VALUE pairs override the
configuration. Exit codes: 0 no problems, 1 check found problems, 2 error in the command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dassl.config import CfgNode, expand_home, get_cfg_default
from dassl.data import DATASET_REGISTRY, build_dataset
from dassl.utils import UserError
from dassl.utils.command_line import Parser, path, run_program

from ._core import checks, preview, shot_exchange
from ._core.base import FewShotDataset
from ._core.mini import make_mini, members_of


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = Parser(
        prog="python -m datasets",
        description=__doc__,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    commands.add_parser("list", help="all datasets and suites").set_defaults(run=list_datasets)
    looks = {
        "check": (check_datasets, "report numbers, splits and problems"),
        "show": (show_dataset, "write a contact sheet"),
        "shots": (exchange_shots, "export few-shot draws to a file, or import them"),
    }
    made = {}
    for name, (action, text) in looks.items():
        made[name] = commands.add_parser(name, help=text, description=text)
        made[name].add_argument("name", help="a dataset or suite, or the YAML of one")
        made[name].add_argument(
            "--root", default="", metavar="DIR", type=path, help="the data folder"
        )
        made[name].add_overrides("configuration keys")
        made[name].set_defaults(run=action)
    made["check"].add_argument(
        "--deep",
        action="store_true",
        help="also decode every image, and find test images that are copies of others",
    )
    sheet = made["show"]
    sheet.add_argument(
        "--output", metavar="PNG", type=path, help="default: output/datasets/<name>.png"
    )
    sheet.add_argument("--classes", type=int, default=60, help="largest number of classes (60)")
    sheet.add_argument("--images", type=int, default=4, help="images per class, at most (4)")
    way = made["shots"].add_mutually_exclusive_group(required=True)
    way.add_argument("--export", metavar="FILE", type=path, help="write the draws as JSON")
    way.add_argument(
        "--import", metavar="FILE", type=path, dest="source", help="use the draws of this JSON"
    )
    mini = commands.add_parser("make-mini", help="write a miniature in the original layout")
    mini.add_argument("name", help="a dataset or suite")
    mini.add_argument("folder", metavar="DIR", type=path, help="the folder to pass as --root")
    mini.add_argument("--per-class", type=int, default=6, help="images per class (6)")
    mini.set_defaults(run=make_miniature)
    return parser.parse_args(argv)


def configuration(args: argparse.Namespace) -> CfgNode:
    """The configuration that the command line asks for."""
    cfg = get_cfg_default()
    if args.name.endswith((".yaml", ".yml")):
        cfg.merge_from_file(args.name)
    else:
        cfg.DATASET.NAME = args.name
    if args.root:
        cfg.DATASET.ROOT = args.root
    cfg.merge_from_list(args.opts)
    expand_home(cfg)
    return cfg


def list_datasets(args: argparse.Namespace) -> int:
    """Print a line per dataset and suite."""
    print(f"{'name':<20} {'tasks':>5} {'classes':>7}  {'folder':<26} task")
    for name in DATASET_REGISTRY.registered_names():
        cls = DATASET_REGISTRY.get(name)
        leaves = [leaf for leaf in members_of(cls) if issubclass(leaf, FewShotDataset)]
        tasks = sum(leaf.num_tasks for leaf in leaves)
        columns = sum(leaf.num_columns for leaf in leaves)
        folder, task = "several", ", ".join(leaf.__name__ for leaf in leaves)
        if leaves == [cls]:
            folder, task = cls.dataset_dir or "any", cls.task_name or "named in its files"
        if not columns:
            tasks = columns = "any"
            folder = getattr(cls, "dataset_dir", "") or "any"
            task = (cls.__doc__ or "").split("\n")[0]
        print(f"{name:<20} {tasks:>5} {columns:>7}  {folder:<26} {task}")
    return 0


def check_datasets(args: argparse.Namespace) -> int:
    """Print a report on each single dataset; 1 if one has problems."""
    cfg = configuration(args)
    reports = [checks.check(cls, own, args.deep) for cls, own in checks.single_datasets(cfg)]
    print("\n".join(map(str, reports)))
    bad = [report.name for report in reports if report.problems]
    if bad:
        print(f"{len(bad)} of {len(reports)} datasets have problems: {', '.join(bad)}")
    return int(bool(bad))


def show_dataset(args: argparse.Namespace) -> int:
    """Write the contact sheet."""
    if min(args.classes, args.images) < 1:
        raise UserError("--classes and --images must be at least 1")
    cfg = configuration(args)
    path = Path(args.output or f"output/datasets/{cfg.DATASET.NAME}.png")
    shown, total = preview.contact_sheet(build_dataset(cfg), path, args.classes, args.images)
    print(f"{path}: {shown} of {total} classes")
    return 0


def exchange_shots(args: argparse.Namespace) -> int:
    """Export or import the few-shot draws."""
    cfg = configuration(args)
    if cfg.DATASET.NUM_SHOTS < 1 or cfg.SEED < 0:
        raise UserError("a draw needs a number and a seed: give DATASET.NUM_SHOTS 16 SEED 1")
    members = checks.single_datasets(cfg)
    if args.export:
        print(f"{args.export}: {shot_exchange.export_shots(members, Path(args.export)):,} images")
    else:
        for path in shot_exchange.import_shots(members, Path(args.source)):
            print(path)
    return 0


def make_miniature(args: argparse.Namespace) -> int:
    """Write the miniature and describe it."""
    for folder in make_mini(args.name, Path(args.folder), args.per_class):
        print(f"{folder}: {(folder / 'miniature.txt').read_text(encoding='utf-8').strip()}")
    return 0


def command() -> int:
    """Run the command line; the exit code."""
    return run_program(_start)


def _start() -> int:
    args = parse_args()
    try:
        return args.run(args)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    sys.exit(command())
