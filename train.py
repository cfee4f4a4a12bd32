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
from dassl.config import CfgNode, get_cfg_default
from dassl.config.node import read_yaml
from dassl.data import DATASET_REGISTRY
from dassl.engine.configuration import build_cfg, check_dataset_chosen
from dassl.engine.registry import TRAINER_REGISTRY
from dassl.utils import (
    UserError,
    collect_env_info,
    set_random_seed,
    setup_logger,
    unknown_name,
)
from dassl.utils.command_line import Parser, path, run_program

CONFIGS = Path(__file__).parent / "configs"
STOPPED = "interrupted: the same command continues from here"
LOAD_EPOCH = "epoch of the checkpoint to load; by default the run's final model"
INIT_FROM = "start from what finished runs learned on other tasks, or from their mean"
LISTS = ("all", "trainers", "datasets", "backbones")
EPILOG = """\
example, without data, weights or a GPU:
  python train.py --trainer MTCoOp --config-file configs/trainers/MTCoOp/tiny_ep50.yaml \\
      --dataset-config-file configs/datasets/digits7.yaml --output-dir output/run --seed 1

A configuration is merged from, in this order: the defaults, the dataset's YAML, the method's YAML,
the protocol's YAML, the flags, the KEY VALUE pairs; later ones win. The same command continues a
run that was stopped, and leaves a complete one alone.

exit codes: 0 done (or nothing to do), 1 the run failed, 2 the command cannot be used
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``.

    Raises:
        UserError: an unknown flag, or a value that a flag does not take.
    """
    parser = Parser(
        prog="train.py",
        description="Train or evaluate one prompt-tuning method on one dataset or suite.",
        epilog=EPILOG,
    )
    yaml = {"default": "", "metavar": "YAML", "type": path}
    folder = {"default": "", "metavar": "DIR", "type": path}
    what = parser.add_argument_group("what to run")
    what.add_argument("--trainer", default="", help="method, such as CoOp or MTCoOp (SoftCPT)")
    what.add_argument("--config-file", help="settings of the method", **yaml)
    what.add_argument("--dataset-config-file", help="settings of the dataset", **yaml)
    what.add_argument("--protocol", default="", help="name of a file in configs/protocols/")
    what.add_argument("--backbone", default="", help="CLIP model, instead of the YAML's")
    what.add_argument("--head", default="", help="ignored, for compatibility with Dassl")
    what.add_argument("--seed", type=int, default=None, help="random seed; -1 draws one")
    where = parser.add_argument_group("where")
    where.add_argument("--root", help="folder that holds the datasets", **folder)
    where.add_argument("--output-dir", help="folder of this run", **folder)
    where.add_argument("--init-from", nargs="+", default=None, metavar="RUN", help=INIT_FROM)
    where.add_argument("--resume", help="continue from the state of another run", **folder)
    where.add_argument("--old-data-path", default="", help="part of image paths to replace")
    where.add_argument("--new-data-path", default="", help="its replacement")
    how = parser.add_argument_group("how")
    how.add_argument("--eval-only", action="store_true", help="evaluate only; see --model-dir")
    how.add_argument("--model-dir", help="with --eval-only: the run to evaluate", **folder)
    how.add_argument("--load-epoch", type=int, default=None, metavar="N", help=LOAD_EPOCH)
    how.add_argument("--no-train", action="store_true", help="build everything, train nothing")
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be learned, and stop (the division of own images is stored)",
    )
    how.add_argument("--show-prompts", action="store_true", help="show the prompts, and stop")
    how.add_argument("--transforms", nargs="+", default=None, help="augmentations in training")
    how.add_argument("--source-domains", nargs="+", default=None, help="domains to train on")
    how.add_argument("--target-domains", nargs="+", default=None, help="domains to test on")
    how.add_argument(
        "--list", nargs="?", const="all", choices=LISTS, help="show the names, and stop"
    )
    how.add_argument("--quiet", action="store_true", help="print nothing; log.txt has it all")
    parser.add_overrides("configuration keys and their values")
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse unknown names and missing files before torch is imported.

    Raises:
        UserError: it names the argument and what is allowed.
    """
    if args.trainer:
        TRAINER_REGISTRY.check_name(args.trainer)
    contents = [read_yaml(Path(f)) for f in (args.dataset_config_file, args.config_file) if f]
    if args.protocol:
        _protocol_file(args.protocol)
    cfg = get_cfg_default()
    keys = args.opts[::2]
    if len(args.opts) % 2 or not any(key.startswith("TRAINER.") for key in keys):
        cfg.merge_from_list(args.opts)
    name = cfg.DATASET.NAME
    own_suite = any("MEMBERS" in (content.get("DATASET") or {}) for content in contents)
    if name and not own_suite and not cfg.DATASET.MEMBERS:
        DATASET_REGISTRY.check_name(name)


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen configuration: defaults, YAML files, protocol, flags, overrides."""
    files = [file for file in (args.dataset_config_file, args.config_file) if file]
    if args.protocol:
        files.append(_protocol_file(args.protocol))
    return build_cfg(files, [word for pair in _flags(args) for word in pair] + args.opts)


def _protocol_file(name: str) -> Path:
    known = sorted(path.stem for path in (CONFIGS / "protocols").glob("*.yaml"))
    if name not in known:
        raise unknown_name("protocol", name, known)
    return CONFIGS / "protocols" / f"{name}.yaml"


def _flags(args: argparse.Namespace) -> list[tuple[str, object]]:
    """The flags on the command line, as configuration keys and values."""
    pairs = [
        ("TRAINER.NAME", args.trainer),
        ("MODEL.BACKBONE.NAME", args.backbone),
        ("MODEL.HEAD.NAME", args.head),
        ("DATASET.ROOT", args.root),
        ("OUTPUT_DIR", args.output_dir),
        ("RESUME", args.resume),
        ("MODEL.INIT_FROM", args.init_from),
        ("DATALOADER.OLD_DATA_PATH", args.old_data_path),
        ("DATALOADER.NEW_DATA_PATH", args.new_data_path),
        ("INPUT.TRANSFORMS", args.transforms),
        ("DATASET.SOURCE_DOMAINS", args.source_domains),
        ("DATASET.TARGET_DOMAINS", args.target_domains),
        ("SEED", args.seed),
    ]
    return [(key, value) for key, value in pairs if value not in (None, "")]


def main(args: argparse.Namespace) -> dict:
    """Do what the command line says; returns the content of results.json.

    Raises:
        UserError: the command cannot be carried out.
    """
    if args.list:
        print(listing(args.list))
        return {}
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
    with record.watched():
        print(f"** Config **\n{cfg}\n** System **\n{collect_env_info()}")
        trainer = _build_trainer(cfg)
        if not (args.eval_only or args.no_train):
            set_all_label_biases(trainer)  # before tasks.json is written
        description = describe_run(cfg, trainer)
        record.describe(trainer.dataset.space, **description)
        print("Computing in {precision} on {device}".format(**description["run"]))
        if args.no_train:
            return record.finish("interrupted")
        _train_or_evaluate(args, trainer)
        return finish_run(record, trainer)


def _train_or_evaluate(args: argparse.Namespace, trainer) -> None:
    if not args.eval_only:
        from dassl.engine.evaluated_images import check_test_images, naming_the_test_alone

        check_test_images(trainer)
        with naming_the_test_alone(trainer):
            return trainer.train()
    from results.task_words import set_evaluated_biases
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
    if torch.cuda.is_available() and cfg.USE_CUDA:
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
        main(args)
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
