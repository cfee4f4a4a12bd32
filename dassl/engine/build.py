"""From ``cfg.TRAINER.NAME`` to a trainer that is ready to train."""

from __future__ import annotations

from dassl.config import CfgNode
from dassl.data.datasets import DatasetBase, build_dataset

from .base import TrainerBase
from .each_task import EachTask
from .registry import TRAINER_REGISTRY


def of_pairs() -> list[str]:
    """Names of the trainers that take images with texts or questions."""
    names = TRAINER_REGISTRY.registered_names()
    return [name for name in names if TRAINER_REGISTRY.get(name).pairs]


def build_trainer(cfg: CfgNode, dataset: DatasetBase | None = None) -> TrainerBase:
    """The trainer that the configuration names, with its data, model and optimizer built.

    Args:
        dataset: the data to train on; None builds what ``cfg.DATASET`` names.
    """
    cls = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cls.suite != "each":
        return cls(cfg) if dataset is None else cls(cfg, dataset=dataset)
    dataset = build_dataset(cfg) if dataset is None else dataset
    if len(dataset.space.tasks) > 1:
        return EachTask(cfg, cls, dataset)
    return cls(cfg, dataset=dataset)
