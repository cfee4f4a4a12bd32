"""The contrast between the images of a batch, an extra loss of CoT."""

from __future__ import annotations

import torch


def batch_contrast(logits: torch.Tensor, column: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of an image's class text between the images of its task in the batch.

    For image b of column y, every image b' of the task is scored against class y in its own
    prompts; the images of that class share the target evenly.

    Args:
        logits: (B, C). column, task: (B,), the column of each image's class, and its task.
    """
    scores = logits[:, column].T  # (B, B): row b holds every image against b's class
    scores = scores.masked_fill(task[:, None] != task, float("-inf")).log_softmax(dim=1)
    same = column[:, None] == column
    return -(scores.masked_fill(~same, 0.0).sum(dim=1) / same.sum(dim=1)).mean()
