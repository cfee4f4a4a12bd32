"""KgCoOp's term as the paper has it: squared distances of unit vectors, weighted by w / 2."""

import torch


def distance(text, templates, weight):
    """weight / 2 times the mean over classes of |t / |t| - e / |e||^2; both (C, e)."""
    total = 0
    for t, e in zip(text, templates, strict=True):
        apart = t / torch.sqrt((t * t).sum()) - e / torch.sqrt((e * e).sum())
        total = total + (apart * apart).sum()
    return weight / 2 * total / len(text)
