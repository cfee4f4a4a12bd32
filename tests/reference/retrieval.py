"""Contrast and recall of images and texts, one pair at a time."""

import torch


def contrast(scores):
    """Mean of both directions' cross-entropies; row i and column i belong together."""
    total = 0
    for i in range(len(scores)):
        row, column = scores[i], scores[:, i]
        total = total + torch.log(torch.exp(row).sum()) - row[i]
        total = total + torch.log(torch.exp(column).sum()) - column[i]
    return total / (2 * len(scores))


def recalls(scores, image, k):
    """Percentages (image to text, text to image) found among the k best; ties count as wrong.

    Args:
        scores: rows are images, columns texts. image: the row that each column belongs to.
    """
    hits = 0
    for i, row in enumerate(scores):
        best = max(s for s, own in zip(row, image, strict=True) if own == i)
        hits += sum(s >= best for s, own in zip(row, image, strict=True) if own != i) < k
    found = 0
    for c, own in enumerate(image):
        right = scores[own][c]
        found += sum(row[c] >= right for i, row in enumerate(scores) if i != own) < k
    return 100 * hits / len(scores), 100 * found / len(image)
