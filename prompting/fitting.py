"""Learning without SGD, from the features of all images at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from dassl.engine import TrainerX
from dassl.engine.checkpoints import BEST

from .prompter import Features
from .stored_features import training_loader


@dataclass(frozen=True)
class Fitting:
    """How a method learns besides SGD, or instead of it.

    fit: sets learned tensors from the features of the training images, before the first step.
    tune: chooses values on the validation images, after the last step.
    tuned_values: names of these values; if there are none, ``tune`` is not called.
    """

    fit: Callable[[], None] | None = None
    tune: Callable[[], None] | None = None
    tuned_values: tuple[str, ...] = ()

    def before_training(self, trainer: TrainerX) -> None:
        """Run ``fit``."""
        if self.fit:
            _run(self.fit, trainer)

    def after_training(self, trainer: TrainerX) -> None:
        """Run ``tune``, and save what no epoch has saved."""
        if self.tuned_values and self.tune:
            _run(self.tune, trainer)
        if self.tuned_values or (self.fit and not trainer.optimizers()):
            name = BEST if trainer.keeps_best() else ""
            trainer.save_model(trainer.max_epoch - 1, trainer.output_dir, model_name=name)


def _run(hook: Callable[[], None], trainer: TrainerX) -> None:
    trainer.set_model_mode("eval")
    with torch.no_grad(), trainer.clock.part("rest"):
        hook()


NO_FITTING = Fitting()


def split_features(
    trainer: TrainerX, split: str, views: int
) -> tuple[Features, torch.Tensor, torch.Tensor]:
    """Features, fp32, labels (N,) and tasks (N,) of all "train" or "val" images, in order.

    Args:
        views: average the features of this many augmented views of the training images; 0: the
            features of the images without augmentation, as in testing. Stored features have no
            more than FEATURES.VIEWS different ones, and each of them counts once.
    """
    if split not in ("train", "val"):
        raise ValueError(f"a method learns from train and val, not from {split!r}")
    if split == "train":
        loader = training_loader(trainer.encoder, trainer.dataset.train_x, augmented=views > 0)
    else:
        loader = trainer.loader_of(split)
    drawn = getattr(loader, "loader", loader).dataset.draws  # else all views are alike
    count = max(views, 1) if drawn else 1
    stored = getattr(loader, "views", 0)
    if 0 < stored < count:
        print(f"Averaging {stored} views of each image instead of {count}: FEATURES.VIEWS {stored}")
        count = stored
    total: Features = {}
    for view in range(count):
        loader.set_epoch(view)
        with torch.no_grad(), trainer.autocast():  # as in testing
            batches = [(trainer.image_features(batch), batch) for batch in loader]
        for name in batches[0][0]:
            rows = torch.cat([features[name] for features, _ in batches]).float()
            total[name] = total[name] + rows if name in total else rows
    labels, tasks = (
        torch.cat([batch[name] for _, batch in batches]).to(trainer.device)
        for name in ("label", "task")
    )
    return {name: rows / count for name, rows in total.items()}, labels, tasks
