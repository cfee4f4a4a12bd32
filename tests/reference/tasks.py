"""Losses and counts over several tasks, one image and one class at a time."""

import math

import torch


def cross_entropy(logits, label, task, sizes, class_mask=None, label_smoothing=0.0):
    """(1 / B) times the sum over images of the cross-entropy within the image's own task."""
    starts = [sum(sizes[:t]) for t in range(len(sizes))]
    total = torch.zeros((), dtype=logits.dtype)
    for row, y, t in zip(logits, label.tolist(), task.tolist(), strict=True):
        columns = [
            c for c in range(starts[t], starts[t] + sizes[t]) if class_mask is None or class_mask[c]
        ]
        log_sum = torch.stack([row[c].exp() for c in columns]).sum().log()
        for c in columns:
            target = label_smoothing / len(columns)
            if c == starts[t] + y:
                target += 1 - label_smoothing
            total = total - target * (row[c] - log_sum)
    return total / len(logits)


def kept_counts(label, task, sizes, rate):
    """For each task, how many classes class sub-sampling keeps."""
    pairs = set(zip(task.tolist(), label.tolist(), strict=True))
    counts = []
    for t, size in enumerate(sizes):
        present = len([pair for pair in pairs if pair[0] == t])
        counts.append(present + math.ceil(round(rate * (size - present), 9)))
    return counts
