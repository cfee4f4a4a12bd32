"""Loading a finished run: its configuration, tasks, frozen backbone and learned parameters."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

import datasets  # noqa: F401  (runs without tasks.json read them)
import trainers  # noqa: F401  (its classes are imported when their names are looked up)
from clip import CLIPError
from clip._errors import TextError
from dassl.config import CfgNode, expand_home, get_cfg_default
from dassl.config.node import read_yaml
from dassl.data import SPLITS, DatasetBase, Datum, TaskSpace
from dassl.data.names import clean_name
from dassl.engine import TRAINER_REGISTRY, SimpleTrainer, TrainerBase, build_trainer
from dassl.utils import UserError, naming_damaged, unknown_name
from results.schema import FILE
from results.tasks_file import read_tasks

from .hub import local_folder
from .learned_parameters import load_parameters
from .run import LoadedRun, find_tasks
from .run_folder import CONFIG, PARAMETERS, read_record

DEVICES = ("auto", "cpu", "cuda")


def load_run(
    folder: str | os.PathLike,
    *,
    device: str = "auto",
    epoch: int | None = None,
    backbone: str = "",
    root: str = "",
    task: int | str | None = None,
    classes: Sequence[str] = (),
    task_name: str = "",
) -> LoadedRun:
    """The trained model of a run directory, or of exported prompts.

    Args:
        folder: the directory, or ``hf-hub:owner/name``.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        epoch: the checkpoint to load; None: the one that the run evaluated.
        backbone: where the backbone is now, if its file has moved; the weights must be the same.
        root: folder of the datasets; only needed for runs without ``tasks.json`` (older ones).
        task: the task whose names are replaced, as in ``LoadedRun.task_ids``; needed if the
            run has several.
        classes: class names that replace the task's, where the method's parameters allow it.
        task_name: a name that replaces the task's, likewise.

    Raises:
        UserError: no complete run, another schema, a backbone that is missing or has other
            weights, or names that the learned parameters are not for.
    """
    path = local_folder(os.fspath(folder))
    record = read_record(path, epoch)
    cfg = _read_config(path, device, backbone, root)
    space = read_tasks(path)
    renamed = bool(classes or task_name)
    if renamed:
        space = _rename(space, path, task, classes, task_name)
        record.pop("calibration", None)  # fitted with the names of the training
    if epoch is not None and epoch != _evaluated_epoch(record, cfg):
        record.pop("calibration", None)  # both are of the evaluated checkpoint
        record["tasks"] = []
    dataset = None if space is None else _without_images(space, record, path / FILE)
    silent = contextlib.redirect_stdout(io.StringIO())  # what a training prints when it is built
    with silent, torch.random.fork_rng(devices=[]):  # whose random start is replaced
        trainer = _build(cfg, dataset)
        _load_parameters(trainer, path, epoch, renamed)
    return LoadedRun(path, record, cast(list[SimpleTrainer], trainer.task_trainers), renamed)


def _evaluated_epoch(record: dict[str, Any], cfg: CfgNode) -> int | None:
    """The epoch whose results a run recorded; None if it is not known."""
    last = record["protocol"].get("selection") == "last_step"
    return cfg.OPTIM.MAX_EPOCH if last and record["status"] == "complete" else None


def _read_config(folder: Path, device: str, backbone: str, root: str) -> CfgNode:
    """The configuration of a run, set to build its model without training or testing."""
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("the device is cuda, but torch finds no GPU; use cpu or auto")
    config = folder / CONFIG
    with naming_damaged(config):
        name = read_yaml(config)["TRAINER"]["NAME"]
        known = name in TRAINER_REGISTRY
    if not known:
        raise UserError(
            f"{config}: no trainer is named {name!r}; a method of your own is known once its file "
            "is in trainers/ or its module is imported"
        )
    cfg = get_cfg_default()
    own_node = getattr(TRAINER_REGISTRY.get(name), "KEY", "")
    for other in [name] if own_node else TRAINER_REGISTRY.registered_names():
        getattr(TRAINER_REGISTRY.get(other), "add_config", lambda cfg: None)(cfg)
    cfg.merge_from_file(config)
    cfg.OUTPUT_DIR, cfg.USE_CUDA, cfg.VERBOSE = str(folder), device != "cpu", False
    cfg.TEST.NO_TEST, cfg.FEATURES.MODE = True, "off"
    cfg.MODEL.INIT_WEIGHTS, cfg.MODEL.INIT_FROM = "", ()
    cfg.MODEL.BACKBONE.NAME = backbone or cfg.MODEL.BACKBONE.NAME
    cfg.DATASET.ROOT = root or cfg.DATASET.ROOT
    expand_home(cfg)
    cfg.freeze()
    return cfg


def _build(cfg: CfgNode, dataset: DatasetBase | None) -> TrainerBase:
    """The trainer, untrained; if the backbone has moved, the error names the way out."""
    try:
        return build_trainer(cfg, dataset)
    except TextError:
        raise
    except CLIPError as error:
        raise UserError(
            f"cannot load the backbone {cfg.MODEL.BACKBONE.NAME}: {error}; if it has moved, give "
            "its new place with --backbone"
        ) from None


def _rename(
    space: TaskSpace | None,
    folder: Path,
    task: int | str | None,
    classes: Sequence[str],
    task_name: str,
) -> TaskSpace:
    """The tasks with other class names, or another name, of one of them."""
    if space is None:
        raise UserError(f"{folder} has no tasks.json, so its names cannot be replaced")
    if isinstance(classes, str):
        raise UserError(f"classes takes a list of names, got the text {classes!r}")
    for name in classes:
        if not isinstance(name, str) or not clean_name(name):
            raise UserError(f"a class name is a text that is not blank, got {name!r}")
    if task is None and len(space.tasks) > 1:
        names = ", ".join(space.tasknames)
        raise UserError(f"choose with --task which task gets the new names: {names}")
    tasks = list(space.tasks)
    t = find_tasks(space.tasknames, task)[0]
    classnames = tuple(classes) or tasks[t].classnames
    if task_name:
        tasks[t] = replace(tasks[t], name=task_name, name_in_prompts="")
    tasks[t] = replace(tasks[t], classnames=classnames)
    return TaskSpace(tuple(tasks))


def _without_images(space: TaskSpace, record: dict[str, Any], file: Path) -> DatasetBase:
    """A dataset of these tasks whose images are only counted, as the record counts them.

    Methods that keep something of every training image size it by their number.

    Args:
        file: the record, for messages.
    """
    splits = {}
    for split in SPLITS:
        with naming_damaged(file):
            counts = [task[split]["items"] for task in record.get("data", {}).get("tasks", [])]
            splits[split] = [
                Datum(f"{split}-{t}-{i}", task=t) for t, n in enumerate(counts) for i in range(n)
            ]
    return DatasetBase(splits["train"], None, splits["val"], splits["test"], space)


def _load_parameters(trainer: TrainerBase, folder: Path, epoch: int | None, renamed: bool) -> None:
    """Load the checkpoints of a run; a method that learns nothing has none."""
    parts = trainer.task_trainers
    if not any(model.state_dict() for part in parts for model in part.models()):
        return
    exported = (folder / PARAMETERS).is_file()
    if not exported and not any(folder.rglob("*.pth.tar*")):
        raise UserError(
            f"{folder} holds no checkpoint: it is an evaluation; give the folder of the training"
        )
    try:
        if exported:
            load_parameters(trainer, folder)
        else:
            trainer.load_model(str(folder), epoch=epoch)
    except UserError as error:
        if not renamed:
            raise
        raise UserError(
            f"{trainer.cfg.TRAINER.NAME} cannot take new names here, since it learned for those "
            f"of its training ({error})"
        ) from None
