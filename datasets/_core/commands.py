"""The commands of ``python -m datasets``; each returns an exit code."""

from __future__ import annotations

import argparse
from pathlib import Path

from dassl.config import CfgNode, expand_home, get_cfg_default
from dassl.data import DATASET_REGISTRY, build_dataset
from dassl.utils import UserError, counted

from . import checks, preview, shot_exchange
from .base import FewShotDataset
from .mini import make_mini, members_of


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
    if not cfg.DATASET.NAME:
        raise UserError(f"{args.name} has no DATASET.NAME")
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
        print(f"problems in {len(bad)} of {counted(len(reports), 'dataset')}: {', '.join(bad)}")
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


COMMANDS = {
    "list": list_datasets,
    "check": check_datasets,
    "show": show_dataset,
    "shots": exchange_shots,
    "make-mini": make_miniature,
}
