"""Low-rank updates of attention from their equation, merged into the weights."""

import torch


def merged(weights, updates, scale):
    """Weights by name with scale B A added to the rows of q, k and v of each joint projection.

    ``updates``: (A, B) of q, k and v, each (3, r, d) and (3, d, r), by the projection's name.
    """
    out = dict(weights)
    for name, (down, up) in updates.items():
        rows = [scale * up[i] @ down[i] for i in range(3)]
        out[name] = weights[name] + torch.cat(rows)
    return out
