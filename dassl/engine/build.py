"""Builds the trainer that ``cfg.TRAINER.NAME`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dassl.config import CfgNode
from dassl.config.protocols import LEAVE_ONE_TASK_OUT
from dassl.data.datasets import DatasetBase, build_dataset
from dassl.utils import UserError

from .balance import refuse_balance
from .base import TrainerBase
from .each_task import EachTask
from .registry import TRAINER_REGISTRY
from .unknown_task import refuse_unknown_task

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


def build_trainer(cfg: CfgNode, dataset: DatasetBase | None = None) -> TrainerBase:
    """The trainer that the configuration names, with its data, model and optimizer built.

    Args:
        dataset: the data to train on; None builds what ``cfg.DATASET`` names.
    """
    cls = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    refuse_balance(cfg, cls)
    refuse_unknown_task(cfg, cls)
    holds_out = cfg.PROTOCOL == LEAVE_ONE_TASK_OUT
    if holds_out and cls.suite != "joint":
        raise UserError(
            f"{cls.__name__} trains each task separately, so it has no prompts for a task that is "
            f"held out ({LEAVE_ONE_TASK_OUT}); choose a method that is trained on all tasks "
            "jointly, such as MTCoOp or MTCoOpHard"
        )
    if cls.suite != "each":
        trainer = cls(cfg) if dataset is None else cls(cfg, dataset=dataset)
        if holds_out:
            _refuse_bound_names(trainer)
        return trainer
    dataset = build_dataset(cfg) if dataset is None else dataset
    if len(dataset.space.tasks) > 1:
        return EachTask(cfg, cls, dataset)
    return cls(cfg, dataset=dataset)


def _refuse_bound_names(trainer: SimpleTrainer) -> None:
    """Refuse a method some of whose learned values are for single classes or tasks."""
    if names := trainer.class_bound_names():
        raise UserError(
            f"{trainer.method_name()} learns values for {len(names)} single classes or tasks "
            f"({names[0]}, ...); a task that is held out ({LEAVE_ONE_TASK_OUT}) has none. Share "
            "them: SoftCPT-NATA and -CATA and CoOp-MT can be tested on other tasks"
        )
