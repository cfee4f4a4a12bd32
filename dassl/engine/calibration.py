"""Calibrates a trained model: temperatures of its logits, fitted on validation or training images.

Dividing the logits of a task by a positive number changes no prediction, only its probability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dassl.config import CfgNode
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.tasks import TaskSpace
from dassl.evaluation.predictions import Predictions
from dassl.metrics.calibration import HIGHEST, LOWEST, calibration_measures, fit_temperature
from dassl.utils import UserError

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer

KEY = "TEST.CALIBRATION"


@dataclass(frozen=True)
class Temperatures:
    """What the logits of each task of a model are divided by.

    Args:
        by: run (one temperature) or task.
        fitted_on: val or train; or "stored" for the temperatures of the run that was trained.
        images: number of images that they were fitted on, by task; 0 if stored.
        values: of each task. One without images to fit on has the common temperature, or 1 if each
            task has its own.
        left_out: numbers of the multi-label tasks, which have the temperature 1 and no record.
    """

    by: str
    fitted_on: str
    images: tuple[int, ...]
    values: tuple[float, ...]
    left_out: tuple[int, ...] = ()

    def words(self) -> str:
        """The different temperatures, for the log."""
        return ", ".join(f"{value:.3f}" for value in dict.fromkeys(self.values))

    def results(self, predictions: Predictions | None) -> dict[str, Any]:
        """The section of ``results.json``: calibration error and likelihood before and after."""
        found = predictions.arrays() if predictions else {}
        tasks = []
        for t, (images, temperature) in enumerate(zip(self.images, self.values, strict=True)):
            if t not in self.left_out:
                fitted = {"id": t, "temperature": temperature, "fitted_images": images}
                tasks.append(fitted | _before_and_after(found, t))
        return {"by": self.by, "fitted_on": self.fitted_on, "tasks": tasks}


def _before_and_after(found: dict[str, np.ndarray], t: int) -> dict[str, float]:
    """ECE and NLL of a task; empty without test images."""
    places = np.flatnonzero(found["task"] == t) if found else ()
    if not len(places):
        return {}
    values = {key: array[places] for key, array in found.items()}
    correct = values["classes"][:, 0] == values["label"]
    before = calibration_measures(
        values["uncalibrated_probability"], correct, values["uncalibrated_label_probability"]
    )
    after = calibration_measures(
        values["probabilities"][:, 0], correct, values["label_probability"]
    )
    return {f"{name}_before": value for name, value in before.items()} | after


def check_calibration(cfg: CfgNode, dataset: DatasetBase) -> None:
    """Refuse TEST.CALIBRATION where nothing can be fitted.

    A choice of multi-label tasks alone is not refused, so that one key suits all runs of a
    protocol; nothing is fitted then.

    Raises:
        UserError: the labels are not single classes, or there is no image to fit on.
    """
    if not cfg.TEST.CALIBRATION:
        return
    space = dataset.space
    if not space.content and not space.class_tasks and cfg.DATASET.SUBSAMPLE_TASKS != "all":
        return
    if space.content or not space.class_tasks:
        what = space.content or "multi-label tasks"
        raise UserError(
            f"{KEY} fits probabilities of one class per image, but {cfg.DATASET.NAME} has {what}; "
            "leave it empty"
        )
    if not _fitting_split(cfg, dataset):
        raise UserError(
            f"{KEY} {cfg.TEST.CALIBRATION} needs images that are not evaluated and have one class "
            f"each: validation or training images of {_names(space.class_tasks, space)}. "
            f"{cfg.DATASET.NAME} has none; leave the key empty"
        )


def fit_temperatures(trainer: SimpleTrainer, infer: Callable) -> Temperatures | None:
    """The temperatures of a model, as in TEST.CALIBRATION; None without one.

    While a model is selected on the validation images there is none, nor for multi-label tasks
    alone. Those of ``trainer.stored_temperatures`` are not fitted again.

    Args:
        infer: logits (B, C) of the images of a batch.
    """
    by = trainer.cfg.TEST.CALIBRATION
    space = trainer.dm.space
    if not by or trainer.selecting_model or not space.class_tasks:
        return None
    if trainer.stored_temperatures:
        return _stored(space, by, trainer.stored_temperatures)
    split = _fitting_split(trainer.cfg, trainer.dataset)
    loader = trainer.val_loader if split == "val" else trainer.training_images()
    rows, labels, tasks = [], [], []
    for batch in loader:
        images, label = trainer.parse_batch_test(batch)
        rows.append(infer(images).float().cpu())
        labels.append(label.cpu())
        tasks.append(batch.get("task", torch.zeros_like(batch["label"])))
    by_task = _by_task(space, *map(torch.cat, (rows, labels, tasks)))
    fitted = _fit(space, by, split, by_task)
    print(f"Temperature of the logits ({KEY} {by}), fitted on the {split} images: {fitted.words()}")
    for line in _at_bounds(fitted, space):
        print(line)
    return fitted


def _stored(space: TaskSpace, by: str, stored: dict[str, float]) -> Temperatures:
    """Temperatures that a training has fitted, by task name."""
    single = space.class_tasks
    values = [stored[task.name] if t in single else 1.0 for t, task in enumerate(space.tasks)]
    images = (0,) * len(values)
    found = Temperatures(by, "stored", images, tuple(values), tuple(space.set_tasks))
    print(f"Temperature of the logits ({KEY} {by}), as the training has fitted it: {found.words()}")
    return found


def _at_bounds(found: Temperatures, space: TaskSpace) -> list[str]:
    """Lines on temperatures that stopped at a bound of the search: what that says of the model."""
    tasks = [t for t in space.class_tasks if found.images[t]]
    low = [t for t in tasks if found.values[t] < 2 * LOWEST]
    high = [t for t in tasks if found.values[t] > HIGHEST / 1.01]
    lines = []
    if low:
        lines.append(
            f"The temperature of {_names(low, space)} is near its lower bound {LOWEST:g}, as where "
            "the model is right on all images that it was fitted on: do not rely on it"
        )
    if high:
        lines.append(
            f"The temperature of {_names(high, space)} is at its upper bound {HIGHEST:g}: on the "
            "images that it was fitted on the model is no better than equal probabilities"
        )
    return lines


def _names(tasks: Iterable[int], space: TaskSpace) -> str:
    return ", ".join(repr(space.tasks[t].name) for t in tasks)


def _fitting_split(cfg: CfgNode, dataset: DatasetBase) -> str:
    """Which images temperatures are fitted on: "val", else "train", or "" if there are none.

    Only images of one class count, and no validation images that are evaluated themselves.
    """
    single = set(dataset.space.class_tasks)

    def usable(items: Iterable[Datum] | None) -> list[Datum]:
        return [item for item in items or () if item.task in single]

    tested = {(item.task, item.impath) for item in dataset.test or ()}
    val = usable(dataset.val)
    apart = not any((item.task, item.impath) in tested for item in val)
    if val and apart and cfg.TEST.SPLIT != "val":
        return "val"
    return "train" if usable(dataset.train_x) else ""


ByTask = dict[int, tuple[np.ndarray, np.ndarray]]  # logits (n, C) and labels (n,)


def _by_task(
    space: TaskSpace, logits: torch.Tensor, label: torch.Tensor, task: torch.Tensor
) -> ByTask:
    found = {}
    for t in space.class_tasks:
        mine = task == t
        if mine.any():
            found[t] = logits[mine][:, space.columns(t)].numpy(), label[mine].numpy()
    return found


def _fit(space: TaskSpace, by: str, split: str, by_task: ByTask) -> Temperatures:
    num_tasks = len(space.tasks)
    values = dict.fromkeys(range(num_tasks), 1.0)
    if by == "task":
        values |= {t: fit_temperature([x], [y]) for t, (x, y) in by_task.items()}
    else:
        common = fit_temperature(*zip(*by_task.values(), strict=True))
        values |= dict.fromkeys(space.class_tasks, common)
    images = tuple(len(by_task[t][1]) if t in by_task else 0 for t in range(num_tasks))
    return Temperatures(by, split, images, tuple(values.values()), tuple(space.set_tasks))
