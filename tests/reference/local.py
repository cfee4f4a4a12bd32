"""Local features of CLIP's image towers, place by place and head by head."""

import math

import torch


def attention_pool(places, weights, heads):
    """Rows (1 + p, e): what is pooled from the mean of the places (p, c), and from each of them.

    ``weights``: the state dict of an attention pool.
    """
    rows = torch.cat([places.mean(0, keepdim=True), places]) + weights["positional_embedding"]
    query, key, value = (
        rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        for name in ("q_proj", "k_proj", "v_proj")
    )
    size = rows.shape[1] // heads
    out = []
    for q in query:
        pooled = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = torch.stack([q[part] @ k[part] / math.sqrt(size) for k in key])
            share = torch.exp(scores - scores.max())
            pooled.append((share / share.sum()) @ value[:, part])
        out.append(torch.cat(pooled) @ weights["c_proj.weight"].T + weights["c_proj.bias"])
    return torch.stack(out)
