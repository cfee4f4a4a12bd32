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


# ---------------------------------------------------------------- TaskRes


def residual_scores(images, text, residual, alpha, scale):
    """exp(scale) times the cosine of f and t_c + alpha x_c: (B, C)."""
    out = []
    for v in images:
        rows = [unit(t + alpha * r) for t, r in zip(text, residual, strict=True)]
        out.append(torch.stack([torch.exp(scale) * (unit(v) @ row) for row in rows]))
    return torch.stack(out)


# ---------------------------------------------------------------- LP++


def blended(images, weight, bias, alpha, text):
    """<f, w_c> + b_c + alpha_c <f, t_c>, (B, C)."""
    out = []
    for v in images:
        v = unit(v)
        row = [
            v @ w + b + a * (v @ unit(t))
            for w, b, a, t in zip(weight, bias, alpha, text, strict=True)
        ]
        out.append(torch.stack(row))
    return torch.stack(out)


def cross_entropies(logits, y):
    """The cross-entropy (B,) of each row of logits (B, C)."""
    return -torch.stack([torch.log_softmax(row, 0)[c] for row, c in zip(logits, y, strict=True)])


def lp_plus_plus(x, y, text, bias, iterations, mean=False, add_up=False):
    """All iterates (w, b, alpha) of LP++, whose steps use the gradient of all images."""
    classes, n = len(text), len(x)
    own = [
        torch.stack([unit(v) for v, k in zip(x, y, strict=True) if k == c]) for c in range(classes)
    ]
    weight = torch.stack([rows.mean(0) if mean else rows.sum(0) for rows in own])
    cosines = [(rows @ unit(t)).mean() for rows, t in zip(own, text, strict=True)]
    alpha = torch.full((classes,), 250 * (sum(cosines) / classes).item(), dtype=x.dtype)
    unit_x = torch.stack([unit(v) for v in x])
    rate = 4 * n / torch.linalg.eigvalsh(unit_x.T @ unit_x).max()
    alpha_rate = n / (4 * max(sum((v @ unit(t)) ** 2 for v in unit_x) for t in text))
    speed, total, out = [torch.zeros_like(weight), torch.zeros_like(bias)], 0.0, []
    for i in range(1, iterations + 1):
        leaves = [value.clone().requires_grad_() for value in (weight, bias, alpha)]
        grads = torch.autograd.grad(cross_entropies(blended(x, *leaves, text), y).mean(), leaves)
        speed = [0.9 * s + g for s, g in zip(speed, grads[:2], strict=True)]
        weight, bias = weight - rate * speed[0], bias - rate * speed[1]
        total = total + grads[2]
        if i % 10 == 0:
            alpha = alpha - alpha_rate * (total if add_up else grads[2])
        out.append((weight, bias, alpha))
    return out
