"""The command line of ``train.py``: its flags, and the configuration that they make."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from dassl.config import CfgNode, get_cfg_default
from dassl.config.node import read_yaml
from dassl.data import DATASET_REGISTRY
from dassl.utils import unknown_name
from dassl.utils.command_line import Parser, path

from .configuration import build_cfg
from .registry import TRAINER_REGISTRY

CONFIGS = Path(__file__).parents[2] / "configs"
LOAD_EPOCH = "epoch of the checkpoint to load; by default the run's final model"
INIT_FROM = "start from what finished runs learned on other tasks, or from their mean"
DEFAULT_OUTPUT = get_cfg_default().OUTPUT_DIR
OUTPUT_DIR = "folder of this run; by default output/<dataset>/<trainer>/<config>_<n>shots/seed<n>"
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
    where.add_argument("--output-dir", help=OUTPUT_DIR, **folder)
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
    sections = [content.get("DATASET") for content in contents]
    own_suite = any(isinstance(keys, dict) and "MEMBERS" in keys for keys in sections)
    if name and not own_suite and not cfg.DATASET.MEMBERS:
        DATASET_REGISTRY.check_name(name)


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen configuration: defaults, YAML files, protocol, flags, overrides."""
    files = [file for file in (args.dataset_config_file, args.config_file) if file]
    if args.protocol:
        files.append(_protocol_file(args.protocol))
    cfg = build_cfg(files, [word for pair in _flags(args) for word in pair] + args.opts)
    chosen = cfg.OUTPUT_DIR != DEFAULT_OUTPUT or args.output_dir or "OUTPUT_DIR" in args.opts[::2]
    return cfg if chosen else cfg.with_values({"OUTPUT_DIR": _default_folder(args, cfg)})


def _default_folder(args: argparse.Namespace, cfg: CfgNode) -> str:
    """The folder of a run whose command names none, as the scripts of CoOp build theirs.

    Commands that differ in other keys share a folder, where the second one is refused.
    """
    dataset = Path(args.dataset_config_file).stem or cfg.DATASET.NAME
    method = [
        Path(args.config_file).stem,
        args.backbone,
        "all_images" if cfg.DATASET.NUM_SHOTS < 0 else f"{cfg.DATASET.NUM_SHOTS}shots",
        *(tasks for tasks in [cfg.DATASET.SUBSAMPLE_TASKS] if tasks != "all"),
        *(classes for classes in [cfg.DATASET.SUBSAMPLE_CLASSES] if classes != "all"),
    ]
    seed = f"seed{cfg.SEED}" if cfg.SEED >= 0 else "drawn_seed"
    parts = [
        args.protocol,
        dataset,
        cfg.TRAINER.NAME,
        "_".join(filter(None, method)),
        f"{seed}_evaluation" if args.eval_only else seed,
    ]
    names = [re.sub(r"[^\w.+-]+", "-", part) for part in parts if part]
    return str(Path(DEFAULT_OUTPUT, *names))


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
