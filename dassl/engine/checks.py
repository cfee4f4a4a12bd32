"""Refuses to train, select or test on images that a dataset lacks, and to test on selected ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dassl.utils import UserError

from .calibration import check_calibration
from .unknown_task import check_unknown_task

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


def check_training(trainer: SimpleTrainer) -> None:
    """Refuse to train without training images."""
    if trainer.learns_from_images() and trainer.train_loader_x is None:
        raise UserError(
            f"{trainer.cfg.DATASET.NAME} has no training images; leave tasks without them out "
            "(DATASET.SUBSAMPLE_TASKS), or evaluate only (--eval-only)"
        )


def check_validation(trainer: SimpleTrainer) -> None:
    """Refuse to train if something is to be selected on validation images and there are none."""
    if trainer.validation_selected():
        trainer.loader_of("val")


def check_test(trainer: SimpleTrainer) -> None:
    """Refuse an impossible TEST.SPLIT, and a selection on images that are also test images."""
    split = trainer.cfg.TEST.SPLIT
    if not trainer.cfg.TEST.NO_TEST:
        trainer.loader_of(split)
        check_unknown_task(trainer)
        check_calibration(trainer.cfg, trainer.dataset)
    selected = trainer.validation_selected()
    if selected and split == "test":
        trainer.dataset.keep_apart(" and ".join(selected))
