"""Train or evaluate one method on one dataset or suite.

    python train.py --trainer MTCoOp --config-file configs/trainers/MTCoOp/rn50_ep50.yaml \\
        --dataset-config-file configs/datasets/digits7.yaml --output-dir output/run --seed 1
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets  # noqa: F401  (its classes are imported when their names are looked up)
import trainers  # noqa: F401  (likewise)
from clip._openai import OPENAI_ARCHS
from clip.catalog import describe_backbones
from dassl.config import CfgNode
from dassl.data import DATASET_REGISTRY
from dassl.engine.arguments import CONFIGS, check_arguments, parse_args, setup_cfg
from dassl.engine.configuration import check_dataset_chosen
from dassl.engine.registry import TRAINER_REGISTRY
from dassl.utils import (
    UserError,
    choose_device,
    collect_env_info,
    set_random_seed,
    setup_logger,
)
from dassl.utils.command_line import run_program
from dassl.utils.files import naming_full_disk

__all__ = [
    "CONFIGS",
    "check_arguments",
    "command",
    "listing",
    "main",
    "parse_args",
    "setup_cfg",
]

STOPPED = "interrupted: the same command continues from here"


def main(args: argparse.Namespace) -> dict:
    """Do what the command line says; returns the content of results.json.

    Raises:
        UserError: the command cannot be carried out.
    """
    cfg = setup_cfg(args)
    check_dataset_chosen(cfg)
    if cfg.RESUME and not any(Path(cfg.RESUME).rglob("resume*.pt")):
        raise UserError(f"--resume names {cfg.RESUME}, which holds no resume.pt of a run")
    if args.dry_run or args.show_prompts:
        trainer = _build_trainer(cfg)
        print("\n".join(trainer.show_prompts() if args.show_prompts else trainer.describe()))
        return {}
    from dassl.utils import distributed
    from results.provenance import check_inputs, describe_weights
    from results.record import RunRecord
    from results.source_runs import check_sources

    if not distributed.is_main():
        return _run_other_rank(args, cfg, distributed.broadcast(None))
    loads = check_sources(cfg, args.eval_only)
    if args.eval_only:
        loads = describe_weights(args.model_dir, args.load_epoch)
    with RunRecord(cfg.OUTPUT_DIR, cfg, loads).locked() as record:
        check_inputs(record, _with_seed(cfg, record.earlier), args.quiet)
        if record.complete:
            distributed.broadcast(None)
            if not args.quiet:
                print(f"{cfg.OUTPUT_DIR} holds this run, complete: nothing to do")
            return record.earlier
        with setup_logger(cfg.OUTPUT_DIR, append=record.exists, console=not args.quiet):
            return _run(args, cfg, record)


def _run(args: argparse.Namespace, cfg: CfgNode, record) -> dict:
    from dassl.engine.label_bias import set_all_label_biases
    from dassl.utils import distributed
    from results.provenance import describe_run, finish_run

    cfg = _with_seed(cfg, record.earlier)
    distributed.broadcast(cfg.SEED)
    record.begin(seed=cfg.SEED)
    with record.watched(), naming_full_disk(cfg.OUTPUT_DIR):
        print(f"Run directory: {cfg.OUTPUT_DIR}")
        print(f"** Config **\n{cfg}\n** System **\n{collect_env_info()}")
        trainer = _build_trainer(cfg)
        if not (args.eval_only or args.no_train):
            set_all_label_biases(trainer)  # before tasks.json is written
        description = describe_run(cfg, trainer, args.model_dir if args.eval_only else "")
        record.describe(trainer.dataset.space, **description)
        print("Computing in {precision} on {device}".format(**description["run"]))
        if args.no_train:
            return record.finish("interrupted")
        _train_or_evaluate(args, trainer)
        return finish_run(record, trainer)


def _train_or_evaluate(args: argparse.Namespace, trainer) -> None:
    if not args.eval_only:
        from dassl.engine.evaluation_errors import check_test_images, hint_to_test_again

        check_test_images(trainer)
        with hint_to_test_again(trainer):
            return trainer.train()
    from results.tasks_file import set_evaluated_biases
    from results.unseen import stored_temperatures

    space, source = trainer.dataset.space, args.model_dir
    stored = stored_temperatures(trainer.cfg, space, source, args.load_epoch)
    for part in trainer.task_trainers:
        part.stored_temperatures = stored
    trainer.load_model(source, epoch=args.load_epoch)
    set_evaluated_biases(trainer, source)
    return trainer.test()


def _run_other_rank(args: argparse.Namespace, cfg: CfgNode, seed: int | None) -> dict:
    """The work of torchrun's processes but the first: the same, without record and log."""
    if seed is not None:  # None: the run is complete
        trainer = _build_trainer(cfg.with_values({"SEED": seed}))
        if not args.no_train:
            _train_or_evaluate(args, trainer)
    return {}


def _build_trainer(cfg: CfgNode):
    import torch

    from dassl.engine import build_trainer

    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    if choose_device(cfg.USE_CUDA) == "cuda":
        torch.backends.cudnn.benchmark = cfg.COMPUTE.CUDNN_BENCHMARK
    return build_trainer(cfg)


def _with_seed(cfg: CfgNode, earlier: dict | None) -> CfgNode:
    """The configuration with a seed: for SEED -1 the one recorded before, or a new one."""
    new = random.SystemRandom().randrange(2**31)
    recorded = (earlier or {}).get("protocol", {}).get("seed", new)
    return cfg if cfg.SEED >= 0 else cfg.with_values({"SEED": recorded})


def listing(kind: str = "all") -> str:
    """The names that can be chosen; nothing here imports torch."""
    lines = []
    for registry in (TRAINER_REGISTRY, DATASET_REGISTRY):
        if kind in ("all", f"{registry.name}s"):
            lines.append(f"{registry.name}s:")
            for name in registry.registered_names():
                lines.append(f"  {name:<20} {registry.summary(name)}")
    if kind == "backbones":
        lines += describe_backbones()
    if kind == "all":
        lines += ["backbones:", f"  {', '.join(['tiny', 'tiny-vit', *OPENAI_ARCHS])}"]
        lines.append("  arch/tag of open_clip (`--list backbones` shows all), arch/random, a file,")
        lines.append("  a folder, hf-hub:owner/name")
    return "\n".join(lines)


def _start(argv: Sequence[str] | None) -> None:
    args = parse_args(argv)
    if args.list:
        print(listing(args.list))
        return
    check_arguments(args)
    from dassl.utils import distributed  # imports torch

    with distributed.session():
        main(args)


def command(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return run_program(lambda: _start(argv), argv, STOPPED, outlives_terminal=True)


if __name__ == "__main__":
    sys.exit(command())
