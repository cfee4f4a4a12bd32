"""Builds the trainer that ``cfg.TRAINER.NAME`` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dassl.config import CfgNode
from dassl.config.protocols import LEAVE_ONE_TASK_OUT
from dassl.data.datasets import DatasetBase, build_dataset
from dassl.utils import UserError

from .balance import refuse_balance
from .base import TrainerBase
from .checks import check_suite, refuses_some_tasks
from .each_task import EachTask
from .registry import TRAINER_REGISTRY
from .unknown_task import refuse_unknown_task

if TYPE_CHECKING:
    from dassl.data import TaskSpace

    from .simple_trainer import SimpleTrainer


def build_trainer(cfg: CfgNode, dataset: DatasetBase | None = None) -> TrainerBase:
    """The trainer that the configuration names, with its data, model and optimizer built.

    Args:
        dataset: the data to train on; None builds what ``cfg.DATASET`` names.
    """
    cls = _fitting_class(cfg)
    holds_out = cfg.PROTOCOL == LEAVE_ONE_TASK_OUT
    if cls.suite != "each":
        trainer = cls(cfg) if dataset is None else cls(cfg, dataset=dataset)
        if holds_out:
            _refuse_bound_names(trainer)
        return trainer
    dataset = build_dataset(cfg) if dataset is None else dataset
    if len(dataset.space.tasks) > 1:
        return EachTask(cfg, cls, dataset)
    return cls(cfg, dataset=dataset)


def _fitting_class(cfg: CfgNode) -> type[TrainerBase]:
    """The class that the configuration names, which takes its rules for several tasks."""
    cls = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    refuse_balance(cfg, cls)
    refuse_unknown_task(cfg, cls)
    if cfg.PROTOCOL == LEAVE_ONE_TASK_OUT and cls.suite != "joint":
        raise UserError(
            f"{cls.__name__} trains each task separately, so it has no prompts for a task that is "
            f"held out ({LEAVE_ONE_TASK_OUT}); choose a method that is trained on all tasks "
            "jointly, such as MTCoOp or MTCoOpHard"
        )
    return cls


def check_method(cfg: CfgNode, read_space: Callable[[CfgNode], TaskSpace | None]) -> None:
    """Refuse a method with wrong options or on unfitting tasks, without building its model.

    Args:
        read_space: the tasks of the configuration, None if they are unknown. It is called only
            for a method that cannot be trained on every kind of task.

    Raises:
        UserError: as :func:`build_trainer` would.
    """
    from .simple_trainer import SimpleTrainer

    cls = _fitting_class(cfg)
    if not issubclass(cls, SimpleTrainer):
        return
    trainer = cls.__new__(cls, cfg)
    TrainerBase.__init__(trainer)
    trainer.check_cfg(cfg)
    if refuses_some_tasks(trainer) and (space := read_space(cfg)):
        check_suite(trainer, cfg, space)


def _refuse_bound_names(trainer: SimpleTrainer) -> None:
    """Refuse a method some of whose learned values are for single classes or tasks."""
    if names := trainer.class_bound_names():
        raise UserError(
            f"{trainer.method_name()} learns values for {len(names)} single classes or tasks "
            f"({names[0]}, ...); a task that is held out ({LEAVE_ONE_TASK_OUT}) has none. Share "
            "them: SoftCPT-NATA and -CATA and CoOp-MT can be tested on other tasks"
        )
