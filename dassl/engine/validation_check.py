"""Refuses a selection on validation images where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


def check_validation(trainer: SimpleTrainer) -> None:
    """Refuse to train if something is to be selected on validation images and there are none."""
    if trainer.validation_selected():
        trainer.loader_of("val")
