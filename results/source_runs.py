"""The finished runs that a training starts from (``--init-from``): checked, and described."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.utils import UserError, read_json

from .schema import FILE, RecordReader
from .settings import settings_of_record

if TYPE_CHECKING:
    from dassl.config import CfgNode


def check_sources(cfg: CfgNode, eval_only: bool = False) -> str:
    """The weights that the training starts from, by a hash of their content; "" without any.

    The runs must have the trainer of ``cfg`` and its options, except PREC and ``free_options``,
    such as the weights of its losses.

    Raises:
        UserError: nothing is trained, a folder is no complete run with the trainer of ``cfg`` and
            its options, or the runs differ in backbone.
    """
    folders = cfg.MODEL.INIT_FROM
    if folders and eval_only:
        raise UserError("--init-from starts a training; with --eval-only give --model-dir")
    readers = [_read(Path(folder)) for folder in folders]
    for folder, reader in zip(folders, readers, strict=True):
        trainer = reader.get("protocol.trainer", str)
        if trainer != cfg.TRAINER.NAME:
            raise UserError(
                f"--init-from names {folder}, a run with {trainer}, but this one trains "
                f"{cfg.TRAINER.NAME}; both must use the same method"
            )
        _check_options(cfg, folder, reader)
        first, own = (r.get("hashes.weights", str) for r in (readers[0], reader))
        if own != first:
            raise UserError(
                f"--init-from averages runs with the same backbone, but the weights of "
                f"{folders[0]} have the hash {first[:8]} and those of {folder} {own[:8]}"
            )
    from dassl.utils.checkpoint import hash_checkpoints  # imports torch

    found = sorted(hash_checkpoints(Path(folder)) for folder in folders)
    return f"start from {', '.join(found)}" if found else ""


def _check_options(cfg: CfgNode, folder: str, reader: RecordReader) -> None:
    """Refuse a run whose tensors were learned for other options than those of ``cfg``."""
    found = differing_options(cfg, reader.get("protocol.options", dict))
    if found:
        words = ", ".join(f"{key} {old!r} (here {new!r})" for key, (old, new) in found.items())
        raise UserError(
            f"--init-from names {folder}, a run with {words}: what it learned fits the same "
            f"options only. Set {' and '.join(found)} as there, or train that run as here"
        )


def differing_options(cfg: CfgNode, there: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of the options that decide what the learned tensors are, with both values.

    Args:
        cfg: the configuration of a training that starts from another run.
        there: the other run's options. Those that it does not know, as it was made by an earlier
            version, are not compared.
    """
    from dassl.engine import TRAINER_REGISTRY  # imports torch

    trainer: Any = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    may_differ = {"PREC", *trainer.free_keys(cfg)}
    return {
        key: (there[name], here)
        for key, name, here in _options(cfg)
        if name not in may_differ and there.get(name, here) != here
    }


def options_of(cfg: CfgNode) -> dict[str, Any]:
    """The options of a configuration's method, as a record has them."""
    return {name: value for _, name, value in _options(cfg)}


def _options(cfg: CfgNode) -> Iterator[tuple[str, str, Any]]:
    """Full key, name and value of each option of the method."""
    for node in (name for name in cfg.TRAINER if name != "NAME"):
        for name, value in cfg.TRAINER[node].to_dict().items():
            yield f"TRAINER.{node}.{name}", name, value


def describe_sources(cfg: CfgNode, carried: dict[str, list[str]]) -> dict[str, Any]:
    """What a record says about the runs that the training started from.

    Args:
        carried: tensors that were carried over, and those that were not.
    """
    runs = []
    for folder in cfg.MODEL.INIT_FROM:
        reader = _read(Path(folder))
        protocol, hashes = reader.section("protocol"), reader.section("hashes")
        keys = ("suite", "tasks", "classes", "shots", "seed", "method", "init_from")
        runs.append(
            {key: protocol[key] for key in keys if key in protocol}
            | {key: hashes.get(key, "") for key in ("config", "data", "weights")}
        )
    return {"runs": runs, **carried}


def name_sources(cfg: CfgNode) -> str:
    """The runs that the training starts from in words, the same for all their seeds.

    The suite, tasks and shots are named; a hash identifies everything else.
    """
    texts, hashes = [], []
    for folder in cfg.MODEL.INIT_FROM:
        reader = _read(Path(folder))
        suite, shots = (reader.get(f"protocol.{key}") for key in ("suite", "shots"))
        tasks = reader.section("protocol").get("tasks", "all")
        named = suite if tasks == "all" else f"{suite} {tasks}"
        texts.append(f"{named} {shots} shots" if shots > 0 else named)
        settings = {**settings_of_record(Path(folder), reader), "suite": suite, "shots": shots}
        hashes.append(hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest())
    words = " + ".join(dict.fromkeys(texts))
    count = f" ({len(texts)} runs)" if len(texts) > 1 else ""
    return f"{words}{count} {hashlib.sha256(''.join(sorted(hashes)).encode()).hexdigest()[:8]}"


def _read(folder: Path) -> RecordReader:
    """The record of a complete run that has one set of weights for all of its tasks."""
    if not (folder / FILE).is_file():
        raise UserError(f"--init-from names {folder}, which is no run: it has no {FILE}")
    reader = RecordReader(folder / FILE, read_json(folder / FILE))
    if reader.status != "complete":
        raise UserError(
            f"--init-from names {folder}, which is not complete ({reader.status}): give its "
            "train.py command again to finish it"
        )
    if (folder / "task0").is_dir():
        raise UserError(
            f"--init-from names {folder}, where each task has weights of its own; give a run on a "
            "single task (DATASET.SUBSAMPLE_TASKS task<i>), or with a method that trains all "
            "tasks jointly, such as MTCoOp or MTCoOpHard"
        )
    return reader
