"""Classification without being told the task of an image: the text side chooses it.

Of an image, the best score of task t is the largest of its logits in the classes of t. Tasks with
more classes, or with names that suit every image, have higher best scores whatever the image
shows. So the scores of each task are standardised by their mean and standard deviation over
training images, and the task with the largest standardised score is chosen.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from dassl.config import CfgNode
from dassl.data.tasks import TaskSpace
from dassl.metrics import task_metric

from .base import EVALUATOR_REGISTRY
from .evaluator import ClassificationMT
from .summary import percent, summarize

SMALLEST = 1e-6  # standard deviation


def best_scores(logits: Tensor, space: TaskSpace) -> Tensor:
    """The largest logit (B, T) of each image (B, C) in each task, fp32."""
    return torch.stack(
        [logits[:, space.columns(t)].float().amax(dim=1) for t in range(len(space.tasks))], dim=1
    )


class TaskChoice:
    """Chooses the task of an image from its logits.

    Args:
        mean, std: (T,), of the best score of each task over training images.
    """

    def __init__(self, space: TaskSpace, mean: Tensor, std: Tensor):
        self.space, self.mean, self.std = space, mean, std

    @classmethod
    def fit(cls, space: TaskSpace, scores: Tensor, task: Tensor) -> TaskChoice:
        """The choice calibrated on training images.

        Every task's images count the same, however many there are.

        Args:
            scores: (N, T) of :func:`best_scores`.
            task: (N,).
        """
        tasks = [scores[task == t].double() for t in task.unique()]
        mean = torch.stack([own.mean(dim=0) for own in tasks]).mean(dim=0)
        variance = torch.stack([((own - mean) ** 2).mean(dim=0) for own in tasks]).mean(dim=0)
        return cls(space, mean.float(), variance.sqrt().float().clamp(min=SMALLEST))

    def choose(self, logits: Tensor) -> Tensor:
        """The task (B,) of each image, from logits (B, C)."""
        scores = best_scores(logits, self.space)
        return ((scores - self.mean.to(scores)) / self.std.to(scores)).argmax(dim=1)


@EVALUATOR_REGISTRY.register()
class ClassificationOfUnknownTask(ClassificationMT):
    """The results of ClassificationMT, and beside them those without the task of each image.

    An image is right without its task if that task is chosen among all, and its class among those
    of the task. Without :meth:`calibrate` the results are those of ClassificationMT alone.
    """

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, space: Any = None):
        super().__init__(cfg, lab2cname, space)
        self.choice: TaskChoice | None = None

    def reset(self) -> None:
        super().reset()
        self.choice = None
        self._hits_without = torch.zeros_like(self._hits)  # (C,) right without the task
        self._chosen = torch.zeros_like(self._hits)  # (C,) images whose task is chosen

    def calibrate(self, choice: TaskChoice) -> None:
        """Choose tasks in the batches to come."""
        self.choice = choice

    def process(self, logits: Tensor, label: Tensor, task: Tensor | None = None) -> None:
        super().process(logits, label, task)
        if self.choice is None:
            return
        assert task is not None  # refused by ClassificationMT
        task, label = task.to(logits.device), label.to(logits.device)
        num = len(self._chosen)
        target = label + self.space.offsets.to(logits.device)[task]  # (B,)
        owner = self.space.owner.to(logits.device)  # (C,)
        predicted = logits.masked_fill(owner != task[:, None], float("-inf")).argmax(dim=1)
        found = self.choice.choose(logits) == task
        self._chosen = self._chosen.to(target) + target[found].bincount(minlength=num)
        right = target[found & (predicted == target)]
        self._hits_without = self._hits_without.to(target) + right.bincount(minlength=num)

    def evaluate(self) -> OrderedDict[str, float]:
        results = super().evaluate()
        if self.choice is None:
            return results
        support = self._support.cpu()
        for t, task in enumerate(self.tasks):
            columns = self.space.columns(t)
            total = support[columns]
            counts = (self._hits_without.cpu()[columns], total)
            with_images = bool(total.sum())
            value = task_metric(task["metric"], *counts).item() if with_images else None
            chosen = 100 * self._chosen.cpu()[columns].sum().item() / max(int(total.sum()), 1)
            task |= {"without_task": value, "task_chosen": chosen if with_images else None}
        for key in ("without_task", "task_chosen"):
            found = summarize([{**task, "value": task[key]} for task in self.tasks])
            self.suite[key] = {name: found[name] for name in ("value", "groups")}
        print("\n".join(self._report()))
        return results

    def _report(self) -> list[str]:
        lines = ["=> without the task of an image: metric, and images whose task is chosen"]
        lines += [
            f"- task {task['id']} ({task['name']}): {percent(task['without_task'])}, task chosen "
            f"for {percent(task['task_chosen'])}"
            for task in self.tasks
        ]
        for name in ("value", *self.suite["task_chosen"]["groups"]):
            values = [
                self.suite[key]["value" if name == "value" else "groups"]
                for key in ("without_task", "task_chosen")
            ]
            if name != "value":
                values = [value[name] for value in values]
            if values[0] is not None:
                where = "all tasks" if name == "value" else name
                lines.append(
                    f"- {where} (mean): {percent(values[0])}, task chosen for {percent(values[1])}"
                )
        return lines
