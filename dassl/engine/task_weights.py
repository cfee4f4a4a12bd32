"""The weights of tasks in the loss of a joint training: the rules of OPTIM.TASK_WEIGHTS.

The loss of a batch is the mean over its images of w_t * l, where l is the cross-entropy of an image
and w_t the weight of its task:

    none          1
    given         OPTIM.TASK_WEIGHT_VALUES, one number per task, used as they are
    by_size       N / (T n_t), with n_t of the N training images: every task counts the same;
                  not together with a sampler of tasks, which would balance them twice
    uncertainty   exp(-s_t), with learned s_t; the loss has s_t / 2 added per image.
                  Kendall et al., https://arxiv.org/abs/1705.07115, for s = log of the variance
    running_mean  1 / m_t, where m_t is a running mean of the task's loss over the batches with it
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dassl.config import CfgNode
from dassl.config.defaults import TASK_SAMPLERS
from dassl.data.datasets import Datum
from dassl.data.tasks import TaskSpace
from dassl.utils import UserError

DECAY = 0.9  # of the running mean: m = 0.9 m + 0.1 l; the first batch of a task sets it
SMALLEST = 1e-8  # running mean, since a task of one class has the loss 0


class TaskWeights(nn.Module):
    """The loss of a batch from those of its images; here their mean, without weights.

    Called once per training step. The state dict is what a resumed training needs.
    """

    def forward(self, loss: Tensor, task: Tensor) -> Tensor:
        """The loss of a batch from those of its images (B,) and their tasks (B,)."""
        return loss.mean()

    def current(self) -> list[float]:
        """The weight of each task now; empty without weights."""
        return []

    def parameter_groups(self, rate: float) -> list[dict]:
        """The learned values, for the optimizer, with a learning rate of their own."""
        learned = list(self.parameters())
        return [{"params": learned, "lr": rate, "weight_decay": 0.0}] if learned else []


class FixedWeights(TaskWeights):
    """Weights (T,) that stay as they are."""

    weights: Tensor

    def __init__(self, weights: Tensor):
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, loss: Tensor, task: Tensor) -> Tensor:
        return (_of_images(self.weights, task) * loss).mean()

    def current(self) -> list[float]:
        return self.weights.tolist()


class UncertaintyWeights(TaskWeights):
    """Weights learned from the uncertainty of each of T tasks; they start at 1."""

    def __init__(self, num_tasks: int):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(num_tasks))  # s (T,)

    def forward(self, loss: Tensor, task: Tensor) -> Tensor:
        s = _of_images(self.log_variance, task)  # (B,)
        return (torch.exp(-s) * loss + s / 2).mean()

    def current(self) -> list[float]:
        return self.log_variance.detach().neg().exp().tolist()


class RunningMeanWeights(TaskWeights):
    """The loss of each of T tasks divided by its running mean, the present batch included."""

    mean: Tensor
    seen: Tensor

    def __init__(self, num_tasks: int):
        super().__init__()
        self.register_buffer("mean", torch.ones(num_tasks))
        self.register_buffer("seen", torch.zeros(num_tasks, dtype=torch.bool))

    def forward(self, loss: Tensor, task: Tensor) -> Tensor:
        members = _members(task, self.mean)
        images = members.sum(dim=0)  # (T,)
        total = (members * loss.detach()[:, None]).sum(dim=0)  # (T,)
        batch = total.to(self.mean) / images.clamp(min=1)
        updated = torch.where(self.seen, DECAY * self.mean + (1 - DECAY) * batch, batch)
        self.mean = torch.where(images > 0, updated, self.mean)
        self.seen = self.seen | (images > 0)
        return (loss / _of_images(self.mean, task).clamp(min=SMALLEST)).mean()

    def current(self) -> list[float]:
        return (1 / self.mean.clamp(min=SMALLEST)).tolist()


def _members(task: Tensor, like: Tensor) -> Tensor:
    """1 where an image belongs to a task: (B, T), in the type of ``like`` (T,).

    Unlike indexing, sums over it neither synchronize with a GPU nor change their order, and unlike
    matrix products they are not rounded by amp.
    """
    return (task[:, None] == torch.arange(len(like), device=task.device)).to(like)


def _of_images(values: Tensor, task: Tensor) -> Tensor:
    """The value (T,) of the task of each image: (B,)."""
    return (_members(task, values) * values).sum(dim=1)


def build_task_weights(optim_cfg: CfgNode, space: TaskSpace, items: Sequence[Datum]) -> TaskWeights:
    """The weights that ``OPTIM.TASK_WEIGHTS`` names, before :func:`check_task_weights`.

    Args:
        items: the training images.
    """
    rule, num_tasks = optim_cfg.TASK_WEIGHTS, len(space.tasks)
    if rule == "given":
        return FixedWeights(torch.tensor([float(w) for w in optim_cfg.TASK_WEIGHT_VALUES]))
    if rule == "by_size":
        tasks = torch.tensor([item.task for item in items], dtype=torch.long)
        images = tasks.bincount(minlength=num_tasks).clamp(min=1)  # (T,)
        return FixedWeights(len(items) / (num_tasks * images.float()))
    if rule == "uncertainty":
        return UncertaintyWeights(num_tasks)
    return RunningMeanWeights(num_tasks) if rule == "running_mean" else TaskWeights()


def check_task_weights(
    optim_cfg: CfgNode, space: TaskSpace, sampler: str = "RandomSampler"
) -> None:
    """Refuse values that do not suit the rule or the tasks, before a training.

    An evaluation does not use them, and may be of other tasks.

    Args:
        sampler: ``DATALOADER.TRAIN_X.SAMPLER``.

    Raises:
        UserError: values for another rule, of another number than the tasks, or all of them 0; a
            rule for tasks drawn by their size together with a sampler that draws them otherwise.
    """
    rule, values = optim_cfg.TASK_WEIGHTS, tuple(optim_cfg.TASK_WEIGHT_VALUES)
    if rule == "by_size" and sampler in TASK_SAMPLERS:
        raise UserError(
            "OPTIM.TASK_WEIGHTS by_size makes tasks count the same whose images are all drawn once "
            f"per epoch, but DATALOADER.TRAIN_X.SAMPLER {sampler} draws them otherwise, so the "
            "small tasks would count for more; leave out one of the two keys"
        )
    names = ", ".join(space.tasknames)
    if values and rule != "given":
        raise UserError(
            f"OPTIM.TASK_WEIGHT_VALUES {values} belongs to OPTIM.TASK_WEIGHTS given, but the rule "
            f"is {rule}; set the rule to given, or leave out the values"
        )
    if rule == "given" and len(values) != len(space.tasks):
        raise UserError(
            f"OPTIM.TASK_WEIGHT_VALUES takes one number for each of the {len(space.tasks)} tasks "
            f"({names}); got {len(values)}: {values}"
        )
    if rule == "given" and not any(values):
        raise UserError(
            f"OPTIM.TASK_WEIGHT_VALUES is 0 for every task ({names}), so nothing would be learned; "
            "give at least one task a weight above 0"
        )
