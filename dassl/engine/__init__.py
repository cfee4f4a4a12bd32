"""The training loop with Dassl's hooks, and the registry of trainers; imported on first use."""

from typing import TYPE_CHECKING

from dassl.utils.lazy import lazy_imports

if TYPE_CHECKING:
    from .base import TrainerBase
    from .build import build_trainer
    from .each_task import EachTask
    from .registry import TRAINER_REGISTRY
    from .simple_trainer import SimpleTrainer
    from .step import Step
    from .trainer_x import TrainerX

__all__ = [
    "TRAINER_REGISTRY",
    "EachTask",
    "SimpleTrainer",
    "Step",
    "TrainerBase",
    "TrainerX",
    "build_trainer",
]

__getattr__, __dir__ = lazy_imports(__name__)
