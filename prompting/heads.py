"""Heads on frozen image features, and the metric by which values are chosen for them."""

from __future__ import annotations

import torch

from dassl.config import CfgNode
from dassl.data.tasks import TaskSpace
from dassl.evaluation import metric_of
from dassl.metrics import task_metric
from dassl.utils import UserError

from .prompter import Prompter


class Head(Prompter):
    """Scores the image features of one task with its learned tensors, without text features."""

    makes_text_features = False


def score(
    cfg: CfgNode, space: TaskSpace, logits: torch.Tensor, label: torch.Tensor
) -> torch.Tensor:
    """The metric (...,) of a single task in percent, from logits (..., N, C) and labels (N,)."""
    classes = torch.eye(space.num_classes, dtype=torch.float64, device=label.device)[label]
    correct = (logits.argmax(dim=-1) == label).double()  # (..., N)
    return task_metric(metric_of(cfg, space.tasks[0]), correct @ classes, classes.sum(dim=0))


def require_every_class(space: TaskSpace, label: torch.Tensor, method: str) -> None:
    """Refuse the training images of a single task if a class has none."""
    images = label.bincount(minlength=space.num_classes)
    if (images == 0).any():
        name = space.classnames[int(images.argmin())]
        raise UserError(
            f"{method} needs a training image of every class, but {name!r} of the task "
            f"{space.tasks[0].name!r} has none; leave the class out, or use a method that learns "
            "prompts"
        )
