"""The weights of tasks in the loss, one image and one batch at a time."""

import math


def given(batches, weights):
    """The loss of each batch, a list of (loss, task) of its images."""
    return [sum(weights[t] * loss for loss, t in batch) / len(batch) for batch in batches]


def by_size(batches, images):
    """The same, from the number of training images of each task."""
    total, tasks = sum(images), len(images)
    return given(batches, [total / (tasks * n) for n in images])


def uncertainty(batches, s):
    """The same, for learned values ``s``: exp(-s) loss + s / 2."""
    return [sum(math.exp(-s[t]) * loss + s[t] / 2 for loss, t in b) / len(b) for b in batches]


def running_mean(batches, decay=0.9):
    """The same, each task's losses divided by their running mean, which the batch is part of."""
    means, found = {}, []
    for batch in batches:
        for task in {t for _, t in batch}:
            losses = [loss for loss, t in batch if t == task]
            mean = sum(losses) / len(losses)
            means[task] = decay * means[task] + (1 - decay) * mean if task in means else mean
        found.append(sum(loss / means[t] for loss, t in batch) / len(batch))
    return found
