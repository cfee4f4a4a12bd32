"""CoCoOp from its equations: every image on its own.

v_j(x) = v_j + h(x), h(x) = W2 max(W1 x + b1, 0) + b2 of the normalised image feature x.
"""

import torch

from tests.reference.prompts import features


def text_features(model, names, ctx, meta, images, position):
    """Text features of every image, a list of (C, e).

    Args:
        model: weights, heads, quick.
        names: (name, tail) token ids of the classes.
        ctx: (m, d).
        meta: W1, b1, W2, b2.
        images: (B, e), not normalised.
    """
    w1, b1, w2, b2 = meta
    out = []
    for x in images:
        x = x / torch.sqrt((x * x).sum())
        hidden = w1 @ x + b1
        shift = w2 @ torch.where(hidden > 0, hidden, torch.zeros_like(hidden)) + b2
        moved = torch.stack([token + shift for token in ctx])
        out.append(features(names, [moved] * len(names), position, **model))
    return out
