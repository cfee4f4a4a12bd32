"""ProGrad from its equations: the teacher's loss and the projected gradient."""

import torch


def softmax(row):
    """Shares of one row of scores."""
    powers = [torch.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def match(scores, teacher, temperature):
    """T^2 times the mean over images of -sum_c softmax(teacher / T)_c log softmax(scores / T)_c."""
    total = 0
    for row, wanted in zip(scores, teacher, strict=True):
        pairs = zip(softmax(wanted / temperature), softmax(row / temperature), strict=True)
        total = total - sum(q * torch.log(p) for q, p in pairs)
    return temperature**2 * total / len(scores)


def projected(gradient, direction, share):
    """The gradient; less share <g, u> u, with u the unit direction, if it goes against u."""
    g, u = gradient.flatten().tolist(), direction.flatten().tolist()
    length = sum(value**2 for value in u) ** 0.5
    u = [value / length for value in u]
    along = sum(a * b for a, b in zip(g, u, strict=True))
    if along < 0:
        g = [a - share * along * b for a, b in zip(g, u, strict=True)]
    return torch.tensor(g, dtype=torch.float64).reshape(gradient.shape)
