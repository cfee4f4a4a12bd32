"""Optimizers and learning rate schedules by name."""

from .lr_scheduler import build_lr_scheduler, lr_at
from .optimizer import build_optimizer

__all__ = ["build_lr_scheduler", "build_optimizer", "lr_at"]
