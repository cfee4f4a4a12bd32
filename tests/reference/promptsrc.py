"""PromptSRC's losses and its average of weights, element by element."""

import math

import torch


def unit(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))


def losses(image, text, image0, text0, scale):
    """The three losses from features of the prompted and of the frozen towers, not normalised."""
    f, t, f0, t0 = (unit(x) for x in (image, text, image0, text0))
    divergence = 0
    for b in range(len(f)):
        z = torch.stack([torch.exp(scale) * (f[b] @ row) for row in t])
        z0 = torch.stack([torch.exp(scale) * (f0[b] @ row) for row in t0])
        p, p0 = torch.softmax(z, 0), torch.softmax(z0, 0)
        divergence = divergence + (p0 * (torch.log(p0) - torch.log(p))).sum()
    return {
        "text": sum(abs(x - y).sum() for x, y in zip(t, t0, strict=True)) / t.numel(),
        "image": sum(abs(x - y).sum() for x, y in zip(f, f0, strict=True)) / f.numel(),
        "logits": divergence / (len(f) * len(t)),
    }


def average(states, mean, std):
    """The weights of epochs 1, 2, ... averaged under a Gaussian."""
    shares = [math.exp(-((e - mean) ** 2) / (2 * std**2)) for e in range(1, len(states) + 1)]
    total = {}
    for name in states[0]:
        rows = zip(shares, states, strict=True)
        total[name] = sum(share / sum(shares) * state[name].double() for share, state in rows)
    return total
