"""Evaluation that is not told the task of an image (``TEST.TASK_GIVEN False``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

from dassl.config import CfgNode
from dassl.data.datasets import Datum
from dassl.data.tasks import TaskSpace
from dassl.evaluation.task_choice import ClassificationOfUnknownTask, TaskChoice, best_scores
from dassl.utils import UserError

if TYPE_CHECKING:
    from .base import TrainerBase
    from .simple_trainer import SimpleTrainer

KEY = "TEST.TASK_GIVEN False"


def refuse_unknown_task(cfg: CfgNode, trainer_cls: type[TrainerBase]) -> None:
    """Refuse TEST.TASK_GIVEN False for a method that has no model of all tasks.

    Raises:
        UserError: the method is not trained jointly.
    """
    if not cfg.TEST.TASK_GIVEN and trainer_cls.suite != "joint":
        raise UserError(
            f"{KEY} compares the scores of all tasks for an image, but {trainer_cls.__name__} "
            "trains each task separately; choose a joint method, such as MTCoOp or MTCoOpHard"
        )


def check_unknown_task(trainer: SimpleTrainer) -> None:
    """Refuse TEST.TASK_GIVEN False where the question has no answer.

    Raises:
        UserError: there is one task, no image to calibrate on, an image in the test of two tasks,
            or a task without a best class.
    """
    cfg, space = trainer.cfg, trainer.dm.space
    if cfg.TEST.TASK_GIVEN:
        return
    if space.content or len(space.tasks) < 2:
        raise UserError(
            f"{KEY} chooses among the tasks of a suite, but {cfg.DATASET.NAME} has one; choose a "
            "suite, or leave TEST.TASK_GIVEN True"
        )
    if space.set_tasks:
        name = space.tasks[space.set_tasks[0]].name
        raise UserError(
            f"{KEY} compares the best classes of tasks, but {name!r} is multi_label and has none; "
            "leave it out with DATASET.SUBSAMPLE_TASKS, or leave TEST.TASK_GIVEN True"
        )
    if cfg.TEST.EVALUATOR != "ClassificationMT":
        raise UserError(f"{KEY} needs TEST.EVALUATOR ClassificationMT; got {cfg.TEST.EVALUATOR}")
    if not trainer.dataset.train_x:
        raise UserError(
            f"{KEY} is calibrated on training images, but {cfg.DATASET.NAME} has none; "
            "leave TEST.TASK_GIVEN True"
        )
    _refuse_shared(getattr(trainer.dataset, cfg.TEST.SPLIT) or (), space)


def _refuse_shared(items: Iterable[Datum], space: TaskSpace) -> None:
    """Refuse images that several tasks ask about."""
    tasks: dict[str, int] = {}
    for item in items:
        first = tasks.setdefault(item.impath, item.task)
        if first != item.task:
            names = [space.tasks[t].name for t in (first, item.task)]
            raise UserError(
                f"{KEY} asks which task an image belongs to, but {item.impath} is a test image of "
                f"{names[0]!r} and of {names[1]!r}; choose a suite whose tasks have images of "
                "their own, or leave TEST.TASK_GIVEN True"
            )


def fit_task_choice(trainer: SimpleTrainer, infer: Callable) -> None:
    """Fit on the training images how the evaluator chooses the task of an image, if it does.

    While a model is selected on the validation images tasks are given.

    Args:
        infer: logits (B, C) of the images of a batch.
    """
    evaluator = trainer.evaluator
    if not isinstance(evaluator, ClassificationOfUnknownTask) or trainer.selecting_model:
        return
    scores, tasks = [], []
    for batch in trainer.training_images():
        images, _ = trainer.parse_batch_test(batch)
        scores.append(best_scores(infer(images), trainer.dm.space))
        tasks.append(batch["task"].to(scores[-1].device))
    evaluator.choice = TaskChoice.fit(trainer.dm.space, torch.cat(scores), torch.cat(tasks))
