"""The training loop with Dassl's hooks, and the registry of trainers."""

from .base import TrainerBase
from .build import TRAINER_REGISTRY, build_trainer
from .each_task import EachTask
from .simple_trainer import SimpleTrainer
from .trainer_x import TrainerX

__all__ = [
    "TRAINER_REGISTRY",
    "EachTask",
    "SimpleTrainer",
    "TrainerBase",
    "TrainerX",
    "build_trainer",
]
