"""Calibrates a trained model: temperatures of its logits, fitted on validation or training images.

Dividing the logits of a task by a positive number changes no prediction, only its probability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dassl.data import build_data_loader
from dassl.data.tasks import TaskSpace
from dassl.evaluation.predictions import Predictions
from dassl.utils import UserError
from dassl.utils.calibration import LOWEST, calibration_measures, fit_temperature

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer

KEY = "TEST.CALIBRATION"


@dataclass(frozen=True)
class Calibration:
    """Temperatures of the tasks of a model.

    Args:
        by: run (one temperature) or task.
        fitted_on: val or train.
        images: number of images that they were fitted on, by task.
        temperatures: of each task; 1 for one that has none.
    """

    by: str
    fitted_on: str
    images: tuple[int, ...]
    temperatures: tuple[float, ...]

    def results(self, predictions: Predictions | None) -> dict[str, Any]:
        """The section of ``results.json``: calibration error and likelihood before and after."""
        found = predictions.arrays() if predictions else {}
        tasks = []
        for t, (images, temperature) in enumerate(zip(self.images, self.temperatures, strict=True)):
            if images:
                own = {"id": t, "temperature": temperature, "fitted_images": images}
                tasks.append(own | _before_and_after(found, t))
        return {"by": self.by, "fitted_on": self.fitted_on, "tasks": tasks}


def _before_and_after(found: dict[str, np.ndarray], t: int) -> dict[str, float]:
    """ECE and NLL of a task; empty without test images."""
    places = np.flatnonzero(found["task"] == t) if found else ()
    if not len(places):
        return {}
    own = {key: values[places] for key, values in found.items()}
    correct = own["classes"][:, 0] == own["label"]
    before = calibration_measures(
        own["uncalibrated_probability"], correct, own["uncalibrated_label_probability"]
    )
    after = calibration_measures(own["probabilities"][:, 0], correct, own["label_probability"])
    return {f"{name}_before": value for name, value in before.items()} | after


def check_calibration(trainer: SimpleTrainer) -> None:
    """Refuse TEST.CALIBRATION where nothing can be fitted.

    Raises:
        UserError: the labels are not single classes, or there is no image to fit on.
    """
    cfg, space = trainer.cfg, trainer.dm.space
    if not cfg.TEST.CALIBRATION:
        return
    if space.content or len(space.set_tasks) == len(space.tasks):
        what = space.content or "multi-label tasks"
        raise UserError(
            f"{KEY} fits probabilities of one class per image, but {cfg.DATASET.NAME} has {what}; "
            "leave it empty"
        )
    if not trainer.dataset.val and not trainer.dataset.train_x:
        raise UserError(
            f"{KEY} needs validation or training images, but {cfg.DATASET.NAME} has none; leave it "
            "empty"
        )


def fit_calibration(trainer: SimpleTrainer, infer: Callable) -> Calibration | None:
    """The temperatures of a model, as in TEST.CALIBRATION; None without one.

    While a model is selected on the validation images there is none.

    Args:
        infer: logits (B, C) of the images of a batch.
    """
    by = trainer.cfg.TEST.CALIBRATION
    if not by or trainer.selecting_model:
        return None
    space, (split, loader) = trainer.dm.space, _images(trainer)
    rows, labels, tasks = [], [], []
    for batch in loader:
        images, label = trainer.parse_batch_test(batch)
        rows.append(infer(images).float().cpu())
        labels.append(label.cpu())
        tasks.append(batch.get("task", torch.zeros_like(batch["label"])))
    by_task = _by_task(space, *map(torch.cat, (rows, labels, tasks)))
    calibration = _fit(space, by, split, by_task)
    shown = ", ".join(f"{value:.3f}" for value in dict.fromkeys(calibration.temperatures))
    print(f"Temperature of the logits ({KEY} {by}), fitted on the {split} images: {shown}")
    if min(calibration.temperatures) < 2 * LOWEST:
        print("A temperature is at its lower bound: the model is right on all of these images")
    return calibration


def _images(trainer: SimpleTrainer) -> tuple[str, Any]:
    """The validation images, or else the training images without augmentation: name and loader.

    Validation images that are evaluated themselves do not count.
    """
    cfg, dataset = trainer.cfg, trainer.dataset
    tested = {(item.task, item.impath) for item in dataset.test or ()}
    held_out = dataset.val and not any((d.task, d.impath) in tested for d in dataset.val)
    if held_out and cfg.TEST.SPLIT != "val":
        return "val", trainer.val_loader
    return "train", build_data_loader(
        cfg,
        data_source=dataset.train_x,
        batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
        is_train=False,
    )


ByTask = dict[int, tuple[np.ndarray, np.ndarray]]  # logits (n, C) and labels (n,)


def _by_task(
    space: TaskSpace, logits: torch.Tensor, label: torch.Tensor, task: torch.Tensor
) -> ByTask:
    found = {}
    for t in range(len(space.tasks)):
        mine = task == t
        if t not in space.set_tasks and mine.any():
            found[t] = logits[mine][:, space.columns(t)].numpy(), label[mine].numpy()
    return found


def _fit(space: TaskSpace, by: str, split: str, by_task: ByTask) -> Calibration:
    num_tasks = len(space.tasks)
    temperatures = dict.fromkeys(range(num_tasks), 1.0)
    if by == "task":
        temperatures |= {t: fit_temperature([x], [y]) for t, (x, y) in by_task.items()}
    else:
        common = fit_temperature(*zip(*by_task.values(), strict=True))
        temperatures |= {t: common for t in range(num_tasks) if t not in space.set_tasks}
    images = tuple(len(by_task[t][1]) if t in by_task else 0 for t in range(num_tasks))
    return Calibration(by, split, images, tuple(temperatures.values()))
