"""PLOT from its equations: one image, one class, one plan at a time."""

import torch


def unit(x):
    return x / torch.sqrt((x * x).sum())


def sinkhorn(cost, eps, max_iter, thresh):
    """Plan (p, n) of a cost: r = (1/p) / (K c), c = (1/n) / (K^T r), K = exp(-cost / eps)."""
    p, n = cost.shape
    kernel = torch.exp(-cost / eps)
    r, c = [1.0] * p, [1.0] * n
    for _ in range(max_iter):
        before = r
        r = [1 / p / sum(kernel[i, j] * c[j] for j in range(n)) for i in range(p)]
        c = [1 / n / sum(kernel[i, j] * r[i] for i in range(p)) for j in range(n)]
        if sum(abs(a - b) for a, b in zip(r, before, strict=True)) / p < thresh:
            break
    return torch.stack(
        [torch.stack([r[i] * kernel[i, j] * c[j] for j in range(n)]) for i in range(p)]
    )


def logits(places, text, scale, whole=None, eps=0.1, max_iter=100, thresh=0.01, uniform=False):
    """Logits (B, C) of places (B, p, e) against prompts (N, C, e).

    ``whole`` (B, e): features whose cosines with the mean prompt of each class are added.
    """
    rows = []
    for b, image in enumerate(places):
        row = []
        for c in range(text.shape[1]):
            found = [[unit(x) @ unit(t) for t in text[:, c]] for x in image]
            similarity = torch.stack([torch.stack(line) for line in found])  # (p, N)
            plan = torch.full_like(similarity, 1 / similarity.numel())
            if not uniform:
                plan = sinkhorn(1 - similarity.detach(), eps, max_iter, thresh)
            score = (plan * similarity).sum()
            if whole is not None:
                score = score + unit(whole[b]) @ unit(sum(unit(t) for t in text[:, c]))
            row.append(torch.exp(scale) * score)
        rows.append(torch.stack(row))
    return torch.stack(rows)
