"""Accuracy of a task, and top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def compute_accuracy(
    output: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor, topk: Sequence[int] = (1,)
) -> list[torch.Tensor]:
    """Percentage of rows whose class is among the k largest outputs, as a (1,) tensor per k.

    Args:
        output: (B, C), or a sequence whose first item is that.
        target: (B,) class of each row.
        topk: the values of k, at most C.
    """
    if not isinstance(output, torch.Tensor):
        output = output[0]
    if len(target) == 0 or max(topk) > output.shape[1]:
        raise ValueError(
            f"top-{max(topk)} accuracy needs rows and at least {max(topk)} columns, "
            f"but the output is {tuple(output.shape)}"
        )
    ranked = output.topk(max(topk), dim=1).indices  # (B, max k)
    hits = (ranked == target[:, None]).float()
    return [100 * hits[:, :k].sum().view(1) / len(target) for k in topk]


def task_metric(metric: str, hits: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """A task's metric in percent (...), for any number of models at once.

    Args:
        metric: "overall_acc", the share of correct images, or "mean_acc", the mean of that share
            over classes (without the classes that have no images).
        hits: (..., C), correct images of each class.
        support: (C,), images of each class; not all zero.
    """
    hits, support = hits.double(), support.double()
    if metric == "mean_acc":
        tested = support > 0
        return 100 * (hits[..., tested] / support[tested]).mean(dim=-1)
    return 100 * hits.sum(dim=-1) / support.sum()
