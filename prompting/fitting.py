"""Learning without SGD: from all features at once, and from the validation images."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dassl.engine import TrainerX
from dassl.engine.base import BEST
from dassl.utils import UserError

from .stored_features import Features, training_loader


class FittingTrainer(TrainerX):
    """A training that may start with a fit and end with a choice of values on validation images.

    sgd: False if all that is learned is set by :meth:`fit`, in one go.
    """

    sgd = True

    # ------------------------------------------------------------------ hooks of a method

    def fit(self) -> None:
        """Learn from :meth:`split_features` before the first step."""

    def tune(self) -> None:
        """Choose on the validation images, after the last step, what :meth:`tuned` names."""

    def tuned(self) -> list[str]:
        """Names of the values that validation images choose."""
        return []

    # ------------------------------------------------------------------ given

    @torch.no_grad()
    def split_features(
        self, split: str, views: int = 0
    ) -> tuple[Features, torch.Tensor, torch.Tensor]:
        """Features, fp32, labels (N,) and tasks (N,) of all "train" or "val" images, in order.

        Args:
            views: average the features of that many augmented views of the training images; 0:
                the features of the images as they are at test time.
        """
        if split not in ("train", "val"):
            raise ValueError(f"a method learns from train and val, not from {split!r}")
        loader = training_loader(self, views > 0) if split == "train" else self.loader_of("val")
        total: Features = {}
        for view in range(max(views, 1)):
            loader.set_epoch(view)
            batches = [(self.image_features(batch), batch) for batch in loader]
            for name in batches[0][0]:
                rows = torch.cat([features[name] for features, _ in batches]).float()
                total[name] = total[name] + rows if name in total else rows
        labels, tasks = (
            torch.cat([batch[name] for _, batch in batches]).to(self.device)
            for name in ("label", "task")
        )
        return {name: rows / max(views, 1) for name, rows in total.items()}, labels, tasks

    def train(self, start_epoch: int | None = None, max_epoch: int | None = None) -> None:
        """Fit if the method does, train by SGD if something is learned that way, and test."""
        if self.optimizers():
            super().train(start_epoch, max_epoch)
        else:
            super().train(0, 0)

    def before_train(self) -> None:
        """Go on from an earlier run's state, or fit."""
        super().before_train()
        if self._fits() and not self.start_epoch:
            if not self.dataset.train_x:
                raise UserError(f"{self.cfg.DATASET.NAME} has no training images")
            self._timed(self.fit)

    def deploy(self) -> None:
        """Take the model that was chosen, tune it, and keep what no epoch has saved."""
        super().deploy()
        if self.tuned():
            self._timed(self.tune)
        if self.tuned() or (self._fits() and not self.optimizers()):
            best = BEST if self.keeps_best() else ""
            self.save_model(self.max_epoch - 1, self.output_dir, model_name=best)

    def _timed(self, hook: Callable[[], None]) -> None:
        self.set_model_mode("eval")
        with torch.no_grad(), self.clock.part("rest"):
            hook()

    def _fits(self) -> bool:
        return type(self).fit is not FittingTrainer.fit

    def validation_selected(self) -> list[str]:
        """The model, if so configured, and the method's tuned values."""
        return [*super().validation_selected(), *self.tuned()]
