"""CLIP's vision transformer with prompt tokens from its equations, one image at a time."""

import math

import torch

from .prompts import activation, layer_norm


def attention(x, weights, name, heads):
    """Self-attention over x (L, d) without a mask."""
    width = x.shape[1]
    joint = x @ weights[f"{name}.in_proj_weight"].T + weights[f"{name}.in_proj_bias"]
    query, key, value = joint.split(width, dim=1)
    size, out = width // heads, []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        out.append(torch.softmax(scores, dim=1) @ value[:, part])
    together = torch.cat(out, dim=1)
    return together @ weights[f"{name}.out_proj.weight"].T + weights[f"{name}.out_proj.bias"]


def encode(image, weights, heads, quick=True, tokens=(), beside=()):
    """Image feature (e,) of an image (3, H, W).

    ``tokens``: prompts (m, d); the first are appended behind the patches, the next replace them
    before layers 1, 2, ...
    ``beside``: functions; what the first layers add to their output, of their normed input.
    """
    kernel = weights["visual.conv1.weight"]
    size = kernel.shape[-1]
    rows = [weights["visual.class_embedding"]]
    for y in range(0, image.shape[1], size):
        for x in range(0, image.shape[2], size):
            patch = image[:, y : y + size, x : x + size]
            rows.append((kernel * patch).sum((1, 2, 3)))
    x = torch.stack(rows) + weights["visual.positional_embedding"]
    own = len(x)
    if len(tokens):
        x = torch.cat([x, tokens[0]])
    x = layer_norm(x, weights, "visual.ln_pre")
    layer = 0
    while f"visual.transformer.resblocks.{layer}.ln_1.weight" in weights:
        name = f"visual.transformer.resblocks.{layer}"
        if 1 <= layer < len(tokens):
            x = torch.cat([x[:own], tokens[layer]])
        normed = layer_norm(x, weights, f"{name}.ln_1")
        x = x + attention(normed, weights, f"{name}.attn", heads)
        y = layer_norm(x, weights, f"{name}.ln_2")
        y = y @ weights[f"{name}.mlp.c_fc.weight"].T + weights[f"{name}.mlp.c_fc.bias"]
        y = activation(y, quick)
        x = x + y @ weights[f"{name}.mlp.c_proj.weight"].T + weights[f"{name}.mlp.c_proj.bias"]
        if layer < len(beside):
            x = x + beside[layer](normed)
        layer += 1
    return layer_norm(x[0], weights, "visual.ln_post") @ weights["visual.proj"]
