"""Methods on frozen image features from their equations, one image and one class at a time."""

import math

import torch


def unit(v):
    """v / |v|."""
    return v / torch.sqrt((v * v).sum())


# ---------------------------------------------------------------- linear probe


def probe_objective(rows, offsets, x, y, c):
    """|W|^2 / 2 + C times the summed cross-entropies of W x + b."""
    total = sum((row * row).sum() for row in rows) / 2
    for image, label in zip(x, y, strict=True):
        scores = [row @ image + offset for row, offset in zip(rows, offsets, strict=True)]
        top = max(scores)
        log_sum = torch.log(sum(torch.exp(s - top) for s in scores)) + top
        total = total + c * (log_sum - scores[label])
    return total


def probe(x, y, classes, c):
    """W (C, e) and b (C,) at the minimum; of two classes only the second has a row of its own."""
    free = classes if classes > 2 else 1
    weight = torch.zeros(free, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(free, dtype=torch.float64, requires_grad=True)

    def full():
        if classes > 2:
            return weight, bias
        zero = torch.zeros(1, dtype=torch.float64)
        return torch.cat([torch.zeros_like(weight), weight]), torch.cat([zero, bias])

    solver = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        value = probe_objective(*full(), x, y, c)
        value.backward()
        return value

    solver.step(closure)
    return tuple(part.detach() for part in full())


def search(quality, low, high, steps):
    """The better end after ``steps`` halvings towards the better end; the lower one if equal."""
    left, right = quality(low), quality(high)
    winner = high if right > left else low
    if steps == 1:
        return winner
    centre = low + (high - low) / 2
    if winner == high:
        return search(quality, centre, high, steps - 1)
    return search(quality, low, centre, steps - 1)


def choose_c(quality):
    """log10 of C: a coarse grid from 1e6 to 1e-6, then eight halvings around its first maximum."""
    best = None
    for exponent in (6, 4, 2, 0, -2, -4, -6):
        if best is None or quality(exponent) > quality(best):
            best = exponent
    return search(quality, best - 1, best + 1, 8)


# ---------------------------------------------------------------- prototypes


def prototypes(x, y, classes):
    """Mean (C, e) of the normalised features of each class."""
    out = []
    for c in range(classes):
        own = [unit(v) for v, label in zip(x, y, strict=True) if label == c]
        out.append(sum(own) / len(own))
    return torch.stack(out)


def nearest(images, means):
    """Minus the squared distance (B, C) of every normalised image feature from every mean."""
    return torch.stack([torch.stack([-((unit(v) - m) ** 2).sum() for m in means]) for v in images])


# ---------------------------------------------------------------- Tip-Adapter


def tip(images, text, keys, labels, alpha, beta, scale):
    """exp(scale) f w + alpha sum over the cache of the class of exp(-beta (1 - f k)): (B, C)."""
    out = []
    for v in images:
        v, row = unit(v), []
        for c, w in enumerate(text):
            votes = [
                torch.exp(-beta * (1 - v @ k))
                for k, label in zip(keys, labels, strict=True)
                if label == c
            ]
            row.append(torch.exp(scale) * (v @ unit(w)) + alpha * sum(votes, torch.zeros(()).to(v)))
        out.append(torch.stack(row))
    return torch.stack(out)


def tip_search(metric, ends, steps):
    """The first best (alpha, beta) of a grid, beta outermost; ``metric(alpha, beta)``."""
    best, chosen = -math.inf, None
    for i in range(steps[1]):
        beta = 0.1 + i * (ends[1] - 0.1) / steps[1]
        for j in range(steps[0]):
            alpha = 0.1 + j * (ends[0] - 0.1) / steps[0]
            value = metric(alpha, beta)
            if value > best:
                best, chosen = value, (alpha, beta)
    return best, chosen


# ---------------------------------------------------------------- CLIP-Adapter


def adapt(images, first, second, ratio):
    """r ReLU(W2 ReLU(W1 f)) + (1 - r) f, (B, e)."""
    out = []
    for v in images:
        hidden = torch.stack([torch.clamp(row @ v, min=0) for row in first])
        made = torch.stack([torch.clamp(row @ hidden, min=0) for row in second])
        out.append(ratio * made + (1 - ratio) * v)
    return torch.stack(out)
