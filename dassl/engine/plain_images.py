"""Training images as an evaluation reads them, for what is fitted after a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dassl.data import Datum, build_data_loader

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


def training_images(trainer: SimpleTrainer, items: Sequence[Datum] | None = None) -> Any:
    """A loader of every training image, or of ``items``, once, without augmentation."""
    return build_data_loader(
        trainer.cfg,
        data_source=trainer.dataset.train_x if items is None else items,
        batch_size=trainer.cfg.DATALOADER.TEST.BATCH_SIZE,
        is_train=False,
    )
