"""MMA's adapters from their equation, one token at a time."""

import torch


def relu(x):
    return torch.where(x > 0, x, torch.zeros_like(x))


def addition(x, leaves, scale):
    """What a block adds (L, width) for its normed tokens x (L, width).

    ``leaves``: (weight, bias) of Down, of the layer that the towers share, and of Up.
    """
    rows = []
    for token in x:
        (down, down_bias), (shared, shared_bias), (up, up_bias) = leaves
        inner = relu(down @ token + down_bias)
        inner = relu(shared @ inner + shared_bias)
        rows.append(scale * (up @ inner + up_bias))
    return torch.stack(rows)
