"""An epoch: its steps, and the lines of the log that tell how they go."""

from __future__ import annotations

import datetime
import time

from dassl.utils import AverageMeter, MetricMeter

from .simple_trainer import SimpleTrainer


class TrainerX(SimpleTrainer):
    """The loop over labelled batches."""

    def run_epoch(self) -> None:
        """One pass over the training loader."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        self.train_loader_x.set_epoch(self.epoch)
        self._images, self._line_time = 0, time.perf_counter()
        with self.clock.part("data"):
            end = time.perf_counter()
            for batch_idx, batch in enumerate(self.train_loader_x):
                self.batch_idx = batch_idx
                data_time.update(time.perf_counter() - end)
                with self.clock.part("rest"):
                    self._step(batch, losses)
                    batch_time.update(time.perf_counter() - end)
                    last = self.batch_idx + 1 == self.num_batches
                    if last or (self.batch_idx + 1) % self.cfg.TRAIN.PRINT_FREQ == 0:
                        self.check_losses()
                        self.log_step(losses, batch_time, data_time)
                end = time.perf_counter()

    def _step(self, batch: dict, losses: MetricMeter) -> None:
        self.lr = self.get_current_lr()  # the last batch moves it on to the next epoch's
        losses.update(self.forward_backward(batch))
        self._images += len(batch["label"])

    def _rate(self) -> float:
        """Images per second since the last line of the log."""
        now = time.perf_counter()
        rate = self._images / max(now - self._line_time, 1e-9)
        self._images, self._line_time = 0, now
        return rate

    def log_step(self, losses, batch_time, data_time) -> None:
        """One line in the log and one point per TensorBoard curve."""
        batches_left = self.num_batches - self.batch_idx - 1
        batches_left += (self.max_epoch - self.epoch - 1) * self.num_batches
        eta = datetime.timedelta(seconds=int(batch_time.avg * batches_left))
        shown = str(losses)  # here the GPU is waited for, so that the rate below is true
        self.clock.settle()
        print(
            f"epoch [{self.epoch + 1}/{self.max_epoch}][{self.batch_idx + 1}/{self.num_batches}]\t"
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f})\t"
            f"data {data_time.val:.3f} ({data_time.avg:.3f})\timages/s {self._rate():.1f}\t"
            f"eta {eta}\t{shown}\tlr {self.lr:.6e}"
        )
        step = self.epoch * self.num_batches + self.batch_idx
        for name, meter in losses.meters.items():
            self.write_scalar(f"train/{name}", meter.avg, step)
        self.write_scalar("train/lr", self.lr, step)

    def parse_batch_train(self, batch):
        """Hook: what of a training batch goes to the device: images, labels and domains."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))
