"""Describes a run for its record: protocol, data, weights, machine, versions and cost."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from dassl.utils import UserError, distributed, read_json, shorten_list
from dassl.utils.hashes import hash_file

from .leftovers import TASK_FOLDER
from .schema import FILE, RecordReader
from .source_runs import describe_sources, name_sources
from .task_relations import save_relations

if TYPE_CHECKING:
    import torch

    from dassl.config import CfgNode
    from dassl.data import DatasetBase

    from .record import RunRecord

PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "scikit-learn", "pillow")


def describe_run(cfg: CfgNode, trainer, model_dir: str = "") -> dict[str, dict]:
    """The sections of a record that are known before training: ``protocol``, ``hashes``, ...

    Args:
        model_dir: the folder of the training that is evaluated; "" if this run trains.
    """
    from dassl.engine.balance import balance_of

    model, dataset = trainer.model_info(), trainer.dataset
    identity = dataset.identity
    sources = describe_sources(cfg, trainer.task_trainers[0].carried) if cfg.MODEL.INIT_FROM else {}
    trained = _protocol_of_training(model_dir)
    trained_on = describe_training(cfg, trained)
    return {
        "protocol": {
            "name": cfg.PROTOCOL,
            "suite": cfg.DATASET.NAME,
            "tasks": cfg.DATASET.SUBSAMPLE_TASKS,
            "classes": cfg.DATASET.SUBSAMPLE_CLASSES,
            "shots": trained.get("shots", cfg.DATASET.NUM_SHOTS),
            "seed": trained.get("seed", cfg.SEED),
            "trainer": cfg.TRAINER.NAME,
            "method": trainer.method_name(),
            "options": model["options"],
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "split": dataset.split,
            "selection": trainer.selection,
            "metric_rule": cfg.TEST.METRIC,
            "steps_rule": trainer.steps_rule,
            **({"init_from": name_sources(cfg)} if sources else {}),
            **({"trained_on": trained_on} if trained_on else {}),
        },
        "hashes": {
            "data": identity.draw,
            "experiment": identity.shared,
            "weights": model["weights"],
            "weights_file": hash_weights_file(cfg),
        },
        "data": {**identity.summary(), **_test_subset(dataset)},
        **({"balance": balance} if (balance := balance_of(cfg)) else {}),
        "run": {
            "device": _device_name(trainer.device),
            "precision": model["precision"],
            "processes": distributed.world_size(),
            "versions": {"python": platform.python_version(), **_versions()},
        },
        **({"init_from": sources} if sources else {}),
    }


def _test_subset(dataset: DatasetBase) -> dict[str, dict]:
    """How many items of the full test split are evaluated; empty if all are."""
    items, full = len(dataset.test or ()), dataset.test_split_size
    if items == full:
        return {}
    return {"test_subset": {"items": items, "of": full, "unit": dataset.space.unit}}


def finish_run(record: RunRecord, trainer) -> dict:
    """Record the results of a run and its cost, and write ``predictions.npz``; the record."""
    from .predictions import save_predictions
    from .tasks_file import write_tasks

    write_tasks(trainer.dataset.space, record.folder)  # with biases of a state to resume from
    save_predictions(trainer, record.folder)
    save_relations(trainer, record.folder)
    cost = {**measure_run(trainer), **record.peak.measured(trainer.device.type)}
    return record.finish("complete", **trainer.results(), run=cost)


def measure_run(trainer) -> dict:
    """The cost of a run: seconds by kind of work; and under amp the optimizer steps that were
    skipped, since a gradient overflowed."""
    seconds = {key: round(value, 3) for key, value in trainer.seconds.items()}
    measured: dict = {"time_split": seconds}
    skipped = [part.skipped_steps() for part in trainer.task_trainers]
    if None not in skipped:
        measured["skipped_steps"] = sum(skipped)
    return measured


def _protocol_of_training(model_dir: str) -> dict:
    """The protocol of the training in a folder; empty without a folder or a record."""
    file = Path(model_dir) / FILE
    if not model_dir or not file.exists():
        return {}
    return RecordReader(file, read_json(file)).section("protocol")


def describe_training(cfg: CfgNode, trained: dict) -> str:
    """What an evaluated model was trained on, in words; "" if it is what the evaluation is on.

    New classes are evaluated with a training on the base classes, and single tasks may be those of
    a training on others; neither is named.

    Args:
        trained: the protocol of the training; empty if it is unknown or this run trains.
    """
    here = cfg.DATASET
    expected = {
        "suite": here.NAME,
        "tasks": "all" if here.SUBSAMPLE_TASKS == "all" else trained.get("tasks"),
        "classes": "all" if here.SUBSAMPLE_CLASSES == "all" else "base",
    }
    differs = {
        key: trained[key] for key in expected if trained.get(key, expected[key]) != expected[key]
    }
    return " ".join(
        f"{value} classes" if key == "classes" else str(value) for key, value in differs.items()
    )


def describe_weights(model_dir: str, epoch: int | None) -> str:
    """The checkpoints that an evaluation-only run loads, named by a hash of their content.

    Args:
        model_dir: the folder of the training; "" evaluates without a checkpoint.
        epoch: the epoch to load; None takes the last one.

    Raises:
        UserError: ``model_dir`` is no folder or holds no checkpoint, its record is broken, or the
            training is not complete and no epoch is chosen.
    """
    if not model_dir:
        return "evaluation without checkpoint"
    folder = Path(model_dir)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} for --model-dir")
    file = folder / FILE
    reader = RecordReader(file, read_json(file)) if file.exists() else None
    status = reader.status if reader else "complete"
    _check_checkpoints(folder, reader)
    if epoch is None and status != "complete":
        raise UserError(
            f"the training in {folder} is not complete ({status}): give its command again to "
            "finish it, or choose an epoch with --load-epoch"
        )
    from dassl.utils.checkpoint import hash_checkpoints  # imports torch

    return f"evaluation of {hash_checkpoints(folder, epoch)}"


def _check_checkpoints(folder: Path, reader: RecordReader | None) -> None:
    """Refuse a folder for ``--model-dir`` without checkpoints, or one that is above those of runs.

    Args:
        reader: the record of the run in the folder; None without one.
    """
    found = sorted(folder.rglob("*.pth.tar*"))
    if found:
        runs = dict.fromkeys(path.parent.parent for path in found)  # above prompt_learner/
        tasks = [run for run in runs if run.parent == folder and run.match(TASK_FOLDER)]
        if folder not in runs and not tasks:
            raise UserError(
                f"--model-dir takes the folder of a run, but {folder} is not the one of its "
                f"checkpoints; they belong to {shorten_list(map(str, runs))}"
            )
        return
    if reader is None:
        remedy = (
            "give the folder of a training, which contains prompt_learner/model.pth.tar-<epoch>"
        )
    elif reader.status != "complete":
        remedy = (
            f"its training stopped before the first one ({reader.status}): give its command again "
            "to finish it"
        )
    else:
        remedy = (
            f"its run with {reader.get('protocol.trainer', str)} learned nothing, only evaluated "
            "or has lost them: leave --model-dir out for a method that learns nothing, else give "
            "the folder of the training"
        )
    raise UserError(f"--model-dir names {folder}, which holds no checkpoint: {remedy}")


def hash_weights_file(cfg: CfgNode) -> str:
    """sha256 of the backbone's local file, or of the files of its folder; "" for published ones."""
    path = Path(cfg.MODEL.BACKBONE.NAME).expanduser()
    if not path.exists():
        return ""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(hash_file(file)))
    return digest.hexdigest()


def check_inputs(record: RunRecord, cfg: CfgNode, quiet: bool = False) -> None:
    """Refuse an earlier run of other data or weights; this reads the dataset's lists again.

    Args:
        quiet: do not print what reading the dataset of a complete run prints, such as the images
            that it leaves out.

    Raises:
        UserError: see :meth:`RunRecord.check_inputs`.
    """
    if record.earlier is None:
        return
    from dassl.data.datasets import build_dataset

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        dataset = build_dataset(cfg)
    if record.complete and not quiet:  # a resumed run builds the dataset again, and prints it then
        print(printed.getvalue(), end="")
    record.check_inputs(dataset.identity, hash_weights_file(cfg))


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
