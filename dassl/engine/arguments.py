"""The command line of ``train.py``: its flags, and the configuration that they make."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.config import CfgNode, get_cfg_default
from dassl.config.node import read_yaml
from dassl.data import DATASET_REGISTRY
from dassl.utils import unknown_name
from dassl.utils.command_line import Parser, path

from .configuration import build_cfg
from .registry import TRAINER_REGISTRY

CONFIGS = Path(__file__).parents[2] / "configs"
MODEL_DIR = "with --eval-only: folder of the trained run; without it nothing is loaded"
LOAD_EPOCH = "with --model-dir: epoch of the checkpoint; by default the final model"
INIT_FROM = "start from the learned parameters of a finished run, or the mean of several"
DEFAULT_OUTPUT = get_cfg_default().OUTPUT_DIR
LONGEST = 60  # of the tasks, or of a run, in a folder's name, of which file systems take 255 bytes
DRY_RUN = "learned parameters and number of steps; it stores the split of own images"
OUTPUT_DIR = (
    "folder of this run (default output/DATASET/TRAINER/CONFIG_<n>shots/seed<n>; "
    "CONFIG_<n>shots_evaluation_of_RUN_<digits> with --model-dir RUN)"
)
NAME: dict[str, Any] = {"default": "", "metavar": "NAME"}  # options of flags
TEXT: dict[str, Any] = {"default": "", "metavar": "TEXT"}
YAML: dict[str, Any] = {"default": "", "metavar": "YAML", "type": path}
FOLDER: dict[str, Any] = {"default": "", "metavar": "DIR", "type": path}
LISTS = ("all", "trainers", "datasets", "backbones")
EPILOG = """\
example, which needs no data, weights or GPU:
  python train.py --trainer MTCoOp --seed 1 \\
      --config-file configs/trainers/MTCoOp/tiny_ep50.yaml \\
      --dataset-config-file configs/datasets/digits7.yaml DATASET.NUM_SHOTS 4

The configuration is merged from the defaults, the dataset's YAML, the method's
YAML, the protocol's YAML, the flags and the KEY VALUE pairs; later ones win.
The same command continues a stopped run, and leaves a complete one alone.

exit codes: 0 done or nothing to do, 1 the run failed, 2 the command is refused
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
    _add_what_and_where(parser)
    _add_how(parser)
    parser.add_overrides("configuration keys and values: OPTIM.LR 0.01 ...")
    return parser.parse_args(argv)


def _add_what_and_where(parser: Parser) -> None:
    what = parser.add_argument_group("what to run").add_argument
    what("--trainer", help="method: CoOp, MTCoOp (which is SoftCPT), ...", **NAME)
    what("--config-file", help="preset of the method, in configs/trainers/", **YAML)
    what("--dataset-config-file", help="dataset or suite, in configs/datasets/", **YAML)
    what("--protocol", help="a file in configs/protocols/ (default few_shot)", **NAME)
    what("--backbone", help="CLIP model, instead of the preset's", **NAME)
    what("--head", help="ignored, for compatibility with Dassl", **NAME)
    what("--seed", type=int, metavar="N", help="random seed (default -1: draw one)")
    where = parser.add_argument_group("where").add_argument
    where("--root", help="folder that contains the datasets", **FOLDER)
    where("--output-dir", help=OUTPUT_DIR, **FOLDER)
    where("--init-from", nargs="+", metavar="RUN", help=INIT_FROM)
    where("--resume", help="folder of another run, to continue from its state", **FOLDER)
    where("--old-data-path", help="part of the image paths to replace", **TEXT)
    where("--new-data-path", help="its replacement", **TEXT)


def _add_how(parser: Parser) -> None:
    names: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    how = parser.add_argument_group("how").add_argument
    how("--eval-only", action="store_true", help="do not train, only evaluate")
    how("--model-dir", help=MODEL_DIR, **FOLDER)
    how("--load-epoch", type=int, metavar="N", help=LOAD_EPOCH)
    how("--no-train", action="store_true", help="write the files of the run, but do not train")
    how("--transforms", help="augmentations in training", **names)
    how("--source-domains", help="domains to train on, for datasets of Dassl", **names)
    how("--target-domains", help="domains to test on, likewise", **names)
    how("--quiet", action="store_true", help="print nothing; log.txt has everything")
    shown = parser.add_argument_group("print information, and exit").add_argument
    shown("--list", nargs="?", const="all", choices=LISTS, help="available names (default all)")
    shown("--dry-run", action="store_true", help=DRY_RUN)
    shown("--show-prompts", action="store_true", help="prompts in words")


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
        *(tasks[:LONGEST] for tasks in [cfg.DATASET.SUBSAMPLE_TASKS] if tasks != "all"),
        *(classes for classes in [cfg.DATASET.SUBSAMPLE_CLASSES] if classes != "all"),
        *_evaluation_words(args, cfg.SEED),
    ]
    parts = [
        args.protocol,
        dataset,
        cfg.TRAINER.NAME,
        "_".join(filter(None, method)),
        f"seed{cfg.SEED}" if cfg.SEED >= 0 else "drawn_seed",
    ]
    names = [re.sub(r"[^\w.+-]+", "-", part) for part in parts if part]
    return str(Path(DEFAULT_OUTPUT, *names))


def _evaluation_words(args: argparse.Namespace, seed: int) -> list[str]:
    """What an evaluation is of, for a folder's name; empty for a training.

    The folder of the training is named by its last part and a digest of its path, without
    ``seed<n>`` if the evaluation has that seed: the evaluations of all seeds are then side by side.
    """
    if not args.eval_only:
        return []
    if not args.model_dir:
        return ["evaluation"]
    folder = Path(args.model_dir).resolve()
    if folder.name == f"seed{seed}":
        folder = folder.parent
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:6]
    epoch = [] if args.load_epoch is None else [f"epoch{args.load_epoch}"]
    return ["evaluation_of", folder.name[:LONGEST], digest, *epoch]


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
