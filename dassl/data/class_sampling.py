"""SoftCPT's class sub-sampling: the classes that one training step computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dassl.utils import UserError

from .tasks import TaskSpace


def sample_classes(
    space: TaskSpace, label: Tensor, task: Tensor, rate: float, generator: torch.Generator
) -> Tensor:
    """Mask (C,) of the columns that one training step computes, on the device of ``label``.

    The classes in the batch and, of every task, ``ceil(rate * others)`` of its other classes,
    drawn evenly.

    Args:
        label: (B,), class within the task.
        task: (B,).
        rate: from 0 (only the classes in the batch) to 1 (all).
        generator: a CPU generator.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"the class sampling rate must lie between 0 and 1; got {rate}")
    present = _present(space, label.cpu(), task.cpu())
    sizes = torch.tensor(space.sizes)
    others = sizes - torch.zeros_like(sizes).index_add_(0, space.owner, present.long())  # (T,)
    # 0.07 * 100 is a little above 7 in floating point and must not count as 8
    quota = torch.tensor([math.ceil(rate * n - 1e-9) for n in others.tolist()])  # (T,)
    # order of each task's columns: its other classes, shuffled, then those in the batch
    noise = torch.rand(space.num_classes, generator=generator, dtype=torch.float64)
    order = (4.0 * space.owner + 2.0 * present + noise).argsort()  # (C,)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(space.num_classes) - space.offsets[space.owner]
    return (present | (rank < quota[space.owner])).to(label.device)


def _present(space: TaskSpace, label: Tensor, task: Tensor) -> Tensor:
    """Mask (C,) of the classes that the images of a batch have; all tensors on the CPU."""
    present = torch.zeros(space.num_classes, dtype=torch.bool)
    of_class = space.has_class(task)
    present[space.column_of(label[of_class], task[of_class])] = True
    for t in space.set_tasks:
        for number in set(label[task == t].tolist()):
            classes = space.tasks[t].kind.classes_of(number)
            present[space.offsets[t] + torch.tensor(classes, dtype=torch.long)] = True
    return present
