"""The loop over the batches of an epoch, and its log lines."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import torch

from dassl.utils import AverageMeter, MetricMeter

from .simple_trainer import SimpleTrainer
from .step import Step


class TrainerX(SimpleTrainer):
    """A trainer on labelled batches."""

    def training_state(self) -> dict:
        observers = [observer.state() for observer in self.observers]
        return {**super().training_state(), "observers": observers}

    def load_training_state(self, state: dict, path: str | Path) -> None:
        super().load_training_state(state, path)
        for observer, saved in zip(self.observers, state.get("observers", []), strict=False):
            observer.load_state(saved)

    def run_epoch(self) -> None:
        """One pass over the training loader."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)  # attributes that Dassl's trainers read
        self.train_loader_x.set_epoch(self.epoch)
        self._images, self._line_time = 0, time.perf_counter()
        with self.clock.part("data"):
            end = time.perf_counter()
            for batch_idx, batch in enumerate(self.train_loader_x):
                self.batch_idx = batch_idx
                data_time.update(time.perf_counter() - end)
                with self.clock.part("rest"):
                    step = Step(self.epoch, batch_idx, self.num_batches)
                    self.lr = self.get_current_lr()  # before the last batch changes it
                    for observer in self.observers:
                        observer.before_step(batch, step)
                    losses.update(self.train_step(batch, step))
                    self._images += len(batch["label"])
                    batch_time.update(time.perf_counter() - end)
                    if step.ends_epoch or (batch_idx + 1) % self.cfg.TRAIN.PRINT_FREQ == 0:
                        self.check_losses()
                        self.log_step(step, losses, batch_time, data_time)
                end = time.perf_counter()

    def train_step(self, batch: dict, step: Step) -> dict[str, float | torch.Tensor]:
        """One step on a batch, by default Dassl's :meth:`forward_backward`."""
        return self.forward_backward(batch)

    def _rate(self) -> float:
        """Images per second since the last log line."""
        now = time.perf_counter()
        rate = self._images / max(now - self._line_time, 1e-9)
        self._images, self._line_time = 0, now
        return rate

    def log_step(
        self, step: Step, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> None:
        """Write a log line, and a point of each curve."""
        batches_left = self.max_epoch * step.num_batches - step.number - 1
        eta = datetime.timedelta(seconds=int(batch_time.avg * batches_left))
        shown = str(losses)  # synchronizes with the GPU, so that the rate below is true
        self.clock.settle()
        print(
            f"epoch [{step.epoch + 1}/{self.max_epoch}]"
            f"[{step.batch_idx + 1}/{step.num_batches}]\t"
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f})\t"
            f"data {data_time.val:.3f} ({data_time.avg:.3f})\timages/s {self._rate():.1f}\t"
            f"eta {eta}\t{shown}\tlr {self.lr:.6e}"
        )
        for name, meter in losses.meters.items():
            self.write_scalar(f"train/{name}", meter.avg, step.number)
        self.write_scalar("train/lr", self.lr, step.number)

    def parse_batch_train(self, batch):
        """Hook: images, labels and domains of a training batch, on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))
