"""Classification without being told the task of an image: the text side chooses it.

Of an image, the best score of task t is the largest of its logits in the classes of t. Tasks with
more classes, or with names that suit every image, have higher best scores whatever the image
shows. So the scores of each task are standardised by their mean and standard deviation over
training images of all tasks, and the task with the largest standardised score is chosen.

Standardised over the images of the task itself, which measures how typical the score is of them,
the choice was right less often than without any calibration (docs/protocols.md).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from dassl.data.tasks import TaskSpace
from dassl.metrics import task_metric

from .base import EVALUATOR_REGISTRY
from .evaluator import ClassificationMT
from .summary import percent, summarize

SMALLEST = 1e-6  # standard deviation
KEYS = ("without_task", "task_chosen")  # in percent: the metric, and the images with their task


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
    of the task.

    Attributes:
        choice: how tasks are chosen, set after :meth:`reset`; None: the results are those of
            ClassificationMT alone.
    """

    def reset(self) -> None:
        super().reset()
        self.choice: TaskChoice | None = None
        self._hits_without = torch.zeros_like(self._hits)  # (C,) right without the task
        self._chosen = torch.zeros_like(self._hits)  # (C,) images whose task is chosen

    def process(self, logits: Tensor, label: Tensor, task: Tensor | None = None) -> None:
        super().process(logits, label, task)
        if self.choice is None or task is None:
            return
        task, label = task.to(logits.device), label.to(logits.device)
        num = len(self._chosen)
        target = self.space.column_of(label, task)  # (B,)
        predicted = self.space.own_logits(logits, task).argmax(dim=1)
        found = self.choice.choose(logits) == task
        self._chosen = self._chosen.to(target) + target[found].bincount(minlength=num)
        right = target[found & (predicted == target)]
        self._hits_without = self._hits_without.to(target) + right.bincount(minlength=num)

    def evaluate(self) -> OrderedDict[str, float]:
        results = super().evaluate()
        if self.choice is None:
            return results
        counts = [x.cpu() for x in (self._hits_without, self._chosen, self._support)]
        for t, task in enumerate(self.tasks):
            right, chosen, total = (count[self.space.columns(t)] for count in counts)
            task |= {"without_task": None, "task_chosen": None}
            if total.sum():
                task["without_task"] = task_metric(task["metric"], right, total).item()
                task["task_chosen"] = task_metric("overall_acc", chosen, total).item()
        for key in KEYS:
            found = summarize([{**task, "value": task[key]} for task in self.tasks])
            self.suite[key] = {name: found[name] for name in ("value", "groups")}
        print("\n".join(self._report()))
        return results

    def _report(self) -> list[str]:
        """Lines of the log; their form is not that of the lines that parsers read."""
        rows = [(f"task {task['id']} ({task['name']})", task) for task in self.tasks]
        means = {key: self.suite[key] for key in KEYS}
        rows.append(("mean", {key: mean["value"] for key, mean in means.items()}))
        rows += [
            (f"mean of {group}", {key: mean["groups"][group] for key, mean in means.items()})
            for group in means["task_chosen"]["groups"]
        ]
        return [
            "=> without the task of an image",
            *(
                f"- {name}: metric {percent(row['without_task'])}, task chosen right for "
                f"{percent(row['task_chosen'])} of the images"
                for name, row in rows
            ),
        ]
