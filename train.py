"""Train or evaluate one method on one dataset or suite.

    python train.py --trainer MTCoOp --config-file configs/trainers/MTCoOp/rn50_ep50.yaml \\
        --dataset-config-file configs/datasets/digits7.yaml --output-dir output/run --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import sys
import textwrap
import traceback
from pathlib import Path

import torch

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from clip import CLIPError, list_backbones
from dassl.config import CfgNode, get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import (
    UserError,
    collect_env_info,
    distributed,
    set_random_seed,
    setup_logger,
    unknown_name,
)
from results.provenance import describe_run, describe_weights, hash_weights_file, measure_run
from results.record import Interrupted, RunRecord

CONFIGS = Path(__file__).parent / "configs"
EPILOG = """\
example, without data, weights or a GPU:
  python train.py --trainer MTCoOp --config-file configs/trainers/MTCoOp/tiny_ep50.yaml \\
      --dataset-config-file configs/datasets/digits7.yaml --output-dir output/run --seed 1

Values come from the defaults, then the dataset's YAML, the method's YAML, the protocol's YAML,
the flags and at last the KEY VALUE pairs; later ones win. A run that was stopped goes on when the
same command is given again; a complete one is left alone.

exit codes: 0 done (or nothing to do), 1 the run failed, 2 the command cannot be used
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are the one line that all errors of a user are."""

    def error(self, message: str):
        raise UserError(f"{message}; --help shows the flags")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``.

    Raises:
        UserError: an unknown flag, or a value that a flag does not take.
    """
    parser = Parser(
        prog="train.py",
        description="Train or evaluate one prompt-tuning method on one dataset or suite.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to run")
    what.add_argument("--trainer", default="", help="method, for example CoOp or MTCoOp (SoftCPT)")
    what.add_argument("--config-file", default="", metavar="YAML", help="the method's settings")
    what.add_argument("--dataset-config-file", default="", metavar="YAML", help="the dataset's")
    what.add_argument("--protocol", default="", help="a preset of configs/protocols/, by name")
    what.add_argument("--backbone", default="", help="CLIP model, instead of the YAML's")
    what.add_argument("--head", default="", help="accepted for Dassl's sake; no method has one")
    what.add_argument("--seed", type=int, default=None, help="seed; -1 draws one and records it")
    place = parser.add_argument_group("where")
    place.add_argument("--root", default="", metavar="DIR", help="folder of the datasets")
    place.add_argument("--output-dir", default="", metavar="DIR", help="folder of this run")
    place.add_argument("--resume", default="", metavar="DIR", help="go on from another run's state")
    place.add_argument("--old-data-path", default="", help="part of image paths to replace")
    place.add_argument("--new-data-path", default="", help="what to replace it by")
    how = parser.add_argument_group("how")
    how.add_argument("--eval-only", action="store_true", help="evaluate only; see --model-dir")
    how.add_argument("--model-dir", default="", metavar="DIR", help="the run to evaluate")
    how.add_argument("--load-epoch", type=int, default=None, metavar="N", help="its epoch to load")
    how.add_argument("--no-train", action="store_true", help="build everything, train nothing")
    how.add_argument("--dry-run", action="store_true", help="show what would be learned, and stop")
    how.add_argument("--show-prompts", action="store_true", help="show the prompts, and stop")
    how.add_argument("--transforms", nargs="+", default=None, help="augmentations in training")
    how.add_argument("--source-domains", nargs="+", default=None, help="Dassl's source domains")
    how.add_argument("--target-domains", nargs="+", default=None, help="Dassl's target domains")
    how.add_argument("--list", action="store_true", help="list trainers, datasets and backbones")
    how.add_argument("--quiet", action="store_true", help="write the log to the run's folder only")
    how.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of config keys")
    args, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("--")]
    if unknown:
        raise unknown_name("flag", unknown[0].split("=")[0], parser._option_string_actions)
    args.opts = [*args.opts, *rest]  # values such as -1 look like flags to argparse
    return args


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen configuration: defaults, YAML files, protocol, flags, overrides."""
    cfg = get_cfg_default()
    for name in TRAINER_REGISTRY.registered_names():
        add_config = getattr(TRAINER_REGISTRY.get(name), "add_config", None)
        if add_config:
            add_config(cfg)
    for file in (args.dataset_config_file, args.config_file):
        if file:
            cfg.merge_from_file(file)
    if args.protocol:
        cfg.merge_from_file(_protocol_file(args.protocol))
    cfg.merge_from_list([word for pair in _flags(args) for word in pair])
    cfg.merge_from_list(args.opts)
    _keep_own_nodes(cfg)
    cfg.freeze()
    return cfg


def _protocol_file(name: str) -> Path:
    known = sorted(path.stem for path in (CONFIGS / "protocols").glob("*.yaml"))
    if name not in known:
        raise unknown_name("protocol", name, known)
    return CONFIGS / "protocols" / f"{name}.yaml"


def _flags(args: argparse.Namespace) -> list[tuple[str, object]]:
    """The flags that were given, as pairs of a key and a value."""
    pairs = [
        ("TRAINER.NAME", args.trainer),
        ("MODEL.BACKBONE.NAME", args.backbone),
        ("MODEL.HEAD.NAME", args.head),
        ("DATASET.ROOT", args.root),
        ("OUTPUT_DIR", args.output_dir),
        ("RESUME", args.resume),
        ("DATALOADER.OLD_DATA_PATH", args.old_data_path),
        ("DATALOADER.NEW_DATA_PATH", args.new_data_path),
        ("INPUT.TRANSFORMS", args.transforms),
        ("DATASET.SOURCE_DOMAINS", args.source_domains),
        ("DATASET.TARGET_DOMAINS", args.target_domains),
        ("SEED", args.seed),
    ]
    return [(key, value) for key, value in pairs if value not in (None, "")]


def _keep_own_nodes(cfg: CfgNode) -> None:
    """Drop the nodes of other methods and datasets: a new one must not change old runs' hash."""
    if not cfg.TRAINER.NAME:
        raise UserError("no trainer chosen: give one with --trainer; --list names them")
    own = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "KEY", "")
    if own:
        cfg.TRAINER = CfgNode({key: cfg.TRAINER[key] for key in ("NAME", own)})
    name = cfg.DATASET.NAME
    if not (name and getattr(DATASET_REGISTRY.get(name), "asks_questions", False)):
        del cfg.DATASET["QUESTIONS"]


def main(args: argparse.Namespace) -> dict:
    """Do what the command line asks; returns the content of results.json.

    Raises:
        UserError, CLIPError: the command cannot be carried out as given.
    """
    if args.list:
        print(listing())
        return {}
    cfg = setup_cfg(args)
    if args.dry_run or args.show_prompts:
        trainer = _build(cfg)
        print("\n".join(trainer.show_prompts() if args.show_prompts else trainer.describe()))
        return {}
    if not distributed.is_main():
        return _follow(args, cfg)
    evaluates = describe_weights(args.model_dir, args.load_epoch) if args.eval_only else ""
    with RunRecord(cfg.OUTPUT_DIR, cfg, evaluates).locked() as record:
        if record.earlier:
            _check_inputs(cfg, record)
        if record.complete:
            distributed.broadcast(None)
            if not args.quiet:
                print(f"{cfg.OUTPUT_DIR} holds this run, complete: nothing to do")
            return record.earlier
        with setup_logger(cfg.OUTPUT_DIR, append=record.exists, console=not args.quiet):
            return _run(args, cfg, record)


def _check_inputs(cfg: CfgNode, record: RunRecord) -> None:
    """Refuse an earlier run of other data or weights; this reads the dataset's lists again."""
    with contextlib.redirect_stdout(io.StringIO()):  # a run that goes on logs them itself
        dataset = build_dataset(_with_seed(cfg, record.earlier))
    record.check_inputs(dataset.identity, hash_weights_file(cfg))


def _run(args: argparse.Namespace, cfg: CfgNode, record: RunRecord) -> dict:
    cfg = _with_seed(cfg, record.earlier)
    distributed.broadcast(cfg.SEED)
    record.begin(seed=cfg.SEED)
    with record.watched():
        print(f"** Config **\n{cfg}\n** System **\n{collect_env_info()}")
        trainer = _build(cfg)
        facts = describe_run(cfg, trainer)
        record.update(**facts)
        print(f"Computing in {facts['run']['precision']} on {facts['run']['device']}")
        if args.no_train:
            return record.finish("interrupted")
        _work(args, trainer)
        return record.finish("complete", **trainer.results(), run=measure_run(trainer))


def _work(args: argparse.Namespace, trainer) -> None:
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    else:
        trainer.train()


def _follow(args: argparse.Namespace, cfg: CfgNode) -> dict:
    """What the other processes of torchrun do: the same work, without record and log."""
    seed = distributed.broadcast(None)
    if seed is None:
        return {}  # the run is complete
    trainer = _build(_seeded(cfg, seed))
    if not args.no_train:
        _work(args, trainer)
    return {}


def _build(cfg: CfgNode):
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    if torch.cuda.is_available() and cfg.USE_CUDA:
        torch.backends.cudnn.benchmark = True
    return build_trainer(cfg)


def _with_seed(cfg: CfgNode, earlier: dict | None) -> CfgNode:
    """The configuration with a seed: for SEED -1 the one recorded before, or a new one."""
    if cfg.SEED >= 0:
        return cfg
    recorded = (earlier or {}).get("protocol", {}).get("seed")
    return _seeded(cfg, random.SystemRandom().randrange(2**31) if recorded is None else recorded)


def _seeded(cfg: CfgNode, seed: int) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = seed
    cfg.freeze()
    return cfg


def listing() -> str:
    """The names that can be chosen, with a line on each method and dataset."""
    lines = []
    for registry in (TRAINER_REGISTRY, DATASET_REGISTRY):
        lines.append(f"{registry.name}s:")
        for name in registry.registered_names():
            about = (registry.get(name).__doc__ or "").strip().split("\n")[0]
            lines.append(f"  {name:<20} {about}")
    lines.append("backbones (a name, arch/tag of open_clip, arch/random, or a file):")
    lines.append(
        textwrap.indent(
            textwrap.fill(", ".join(list_backbones()), 96, break_on_hyphens=False), "  "
        )
    )
    return "\n".join(lines)


def command() -> int:
    """Run the command line; the exit code."""
    try:
        with distributed.session():
            main(parse_args())
    except (KeyboardInterrupt, Interrupted):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        if isinstance(error, (UserError, CLIPError)):
            print(f"error: {error}", file=sys.stderr)
            return 2
        name = type(error).__name__
        print(f"error: {name}: {error} (--debug shows where)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(command())
