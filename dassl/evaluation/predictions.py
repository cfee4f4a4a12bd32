"""What a model predicts for each evaluated image: its best classes and their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dassl.data.datasets import Datum
from dassl.data.tasks import TaskSpace

TOP = 5  # classes kept per image


class Predictions:
    """The most probable classes of every image of an evaluation, among those of its task.

    Args:
        space: the tasks; nothing is kept for captions and questions, nor for the images of a
            multi-label task, whose answer is not one class.
        temperatures: of the logits of each task; None: 1, and the probabilities without them are
            not kept besides.
    """

    def __init__(self, space: TaskSpace, temperatures: Sequence[float] | None = None):
        self.space = space
        self.temperatures = None if temperatures is None else torch.tensor(temperatures)
        self._batches: list[dict[str, torch.Tensor]] = []

    def add(
        self,
        logits: torch.Tensor,
        label: torch.Tensor,
        index: torch.Tensor | None,
        task: torch.Tensor | None = None,
    ) -> None:
        """Keep a batch: logits (B, C), label (B,) within the task, index (B,) of the image, task
        (B,).

        Without ``task`` there is only one; without ``index``, from a loader of another project,
        nothing is kept.
        """
        if self.space.content or index is None:
            return
        device = logits.device
        task = torch.zeros_like(label) if task is None else task
        task, label = task.to(device), label.to(device)
        if self.space.set_tasks:
            kept = self.space.has_class(task)
            logits, label, task, index = logits[kept], label[kept], task[kept], index[kept.cpu()]
        masked = self.space.own_logits(logits.float(), task)
        log_p = masked.log_softmax(dim=1)  # (B, C)
        target = self.space.column_of(label, task)[:, None]  # (B, 1)
        offset = target - label[:, None]
        uncalibrated = {}
        if self.temperatures is not None:
            uncalibrated = {
                "uncalibrated_probability": log_p.amax(dim=1).exp(),
                "uncalibrated_label_probability": log_p.gather(1, target)[:, 0].exp(),
            }
            temperature = self.temperatures.to(device, masked.dtype)[task]
            log_p = (masked / temperature[:, None]).log_softmax(dim=1)
        best = log_p.topk(min(TOP, logits.shape[1]), dim=1)
        self._batches.append(
            {
                "index": index,
                "task": task,
                "label": label,
                # a task with fewer classes than TOP has -1 in the places that are left
                "classes": torch.where(best.values.isinf(), -1, best.indices - offset),
                "probabilities": best.values.exp(),
                "label_probability": log_p.gather(1, target)[:, 0].exp(),
                **uncalibrated,
            }
        )

    def of_items(self, items: Sequence[Datum]) -> list[Datum]:
        """The items of the evaluated list whose predictions are kept."""
        return [item for item in items if item.task not in self.space.set_tasks]

    def arrays(self) -> dict[str, np.ndarray]:
        """All images in the order of their index; empty if nothing was kept.

        task, label, label_probability (N,); classes and probabilities (N, TOP or fewer); with
        temperatures uncalibrated_probability, of the predicted class, and
        uncalibrated_label_probability (N,).
        """
        if not any(len(batch["label"]) for batch in self._batches):
            return {}
        columns = {
            key: torch.cat([b[key] for b in self._batches]).cpu() for key in self._batches[0]
        }
        order = columns.pop("index").argsort()
        return {key: values[order].numpy() for key, values in columns.items()}
