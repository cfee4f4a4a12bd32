"""CLIP's text tower and CoOp's prompts from their equations, one token and one head at a time.

Weights are a state dict under OpenAI's names. Nothing is shared or cut short: every prompt is
built on its own and run at the full context length.
"""

import math

import torch


def layer_norm(x, weights, name):
    """(x - mean) / sqrt(variance + 1e-5), scaled and shifted."""
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    scaled = (x - mean) / torch.sqrt(variance + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def activation(x, quick):
    """QuickGELU or GELU."""
    if quick:
        return x / (1 + torch.exp(-1.702 * x))
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def attention(x, weights, name, heads):
    """Causal self-attention over x (L, d)."""
    length, width = x.shape
    joint = x @ weights[f"{name}.in_proj_weight"].T + weights[f"{name}.in_proj_bias"]
    query, key, value = joint.split(width, dim=1)
    size = width // heads
    later = torch.ones(length, length).triu(1).bool()  # a token does not see those behind it
    out = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        scores = scores.masked_fill(later, float("-inf"))
        share = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
        out.append(share / share.sum(dim=1, keepdim=True) @ value[:, part])
    together = torch.cat(out, dim=1)
    return together @ weights[f"{name}.out_proj.weight"].T + weights[f"{name}.out_proj.bias"]


def encode(x, eot, weights, heads, quick=True, deep=(), beside=()):
    """Text feature (e,) of embeddings x (L, d) whose EOT stands at ``eot``.

    ``deep``: contexts (m, d) that overwrite the tokens after SOS before layers 1, 2, ...; None
    leaves them. ``beside``: functions; what the first layers add to their output, of their normed
    input.
    """
    x = x + weights["positional_embedding"][: len(x)]
    layer = 0
    while f"transformer.resblocks.{layer}.ln_1.weight" in weights:
        name = f"transformer.resblocks.{layer}"
        if 1 <= layer <= len(deep) and deep[layer - 1] is not None:
            m = len(deep[layer - 1])
            x = torch.cat([x[:1], deep[layer - 1], x[1 + m :]])
        normed = layer_norm(x, weights, f"{name}.ln_1")
        x = x + attention(normed, weights, f"{name}.attn", heads)
        y = layer_norm(x, weights, f"{name}.ln_2")
        y = y @ weights[f"{name}.mlp.c_fc.weight"].T + weights[f"{name}.mlp.c_fc.bias"]
        y = activation(y, quick)
        x = x + y @ weights[f"{name}.mlp.c_proj.weight"].T + weights[f"{name}.mlp.c_proj.bias"]
        if layer < len(beside):
            x = x + beside[layer](normed)
        layer += 1
    return layer_norm(x, weights, "ln_final")[eot] @ weights["text_projection"]


def prompt(name, tail, ctx, position, weights, sos=49406, length=77):
    """Embeddings (length, d) of [SOS] context name tail, and the place of EOT.

    Args:
        name: token ids of the name.
        tail: token ids behind it: the full stop and EOT.
        ctx: (m, d); "middle" puts the first m // 2 tokens left of the name.
    """
    table = weights["token_embedding.weight"]
    m = len(ctx)
    left = {"end": m, "middle": m // 2, "front": 0}[position]
    rows = [table[sos]]
    for i in range(left):
        rows.append(ctx[i])
    for token in name:
        rows.append(table[token])
    for i in range(left, m):
        rows.append(ctx[i])
    for token in tail:
        rows.append(table[token])
    eot = len(rows) - 1
    while len(rows) < length:
        rows.append(table[0])
    return torch.stack(rows), eot


def features(names, contexts, position, weights, heads, quick=True):
    """Text features (n, e): ``names`` are pairs (name, tail) of token ids."""
    out = []
    for (name, tail), ctx in zip(names, contexts, strict=True):
        x, eot = prompt(name, tail, ctx, position, weights)
        out.append(encode(x, eot, weights, heads, quick))
    return torch.stack(out)


def logits(images, text, scale):
    """Logits (B, C): exp(scale) times the cosine of every image and text feature."""
    out = []
    for v in images:
        v = v / torch.sqrt((v * v).sum())
        out.append(
            torch.stack([torch.exp(scale) * (v @ w) / torch.sqrt((w * w).sum()) for w in text])
        )
    return torch.stack(out)


def loss(scores, labels, tasks, sizes, class_mask=None, smoothing=0.0):
    """Per-task cross-entropies, summed over the images of each task, then over B (equation 8).

    ``class_mask``: which columns take part. ``smoothing``: share of the target spread over them.
    """
    total = 0
    for t, size in enumerate(sizes):
        start = sum(sizes[:t])
        columns = [c for c in range(start, start + size) if class_mask is None or class_mask[c]]
        for row, label, task in zip(scores, labels, tasks, strict=True):
            if task != t:
                continue
            top = max(row[c] for c in columns)
            log_sum = torch.log(sum(torch.exp(row[c] - top) for c in columns)) + top
            hit = log_sum - row[start + label]
            spread = sum(log_sum - row[c] for c in columns) / len(columns)
            total = total + (1 - smoothing) * hit + smoothing * spread
    return total / len(labels)
