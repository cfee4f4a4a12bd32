"""VPT, IVLP and MaPLe from their equations: every prompt and every image on its own."""

import torch

from . import images, prompts


def text_features(names, ctx, deep, words, weights, heads):
    """Text features (n, e) of names in one context (m, d), followed by fixed ``words`` (p, d).

    Args:
        names: pairs (name, tail) of token ids.
        deep: contexts (m, d) of the later layers.
    """
    out = []
    for name, tail in names:
        x, eot = prompts.prompt(name, tail, torch.cat([ctx, words]), "end", weights)
        out.append(prompts.encode(x, eot, weights, heads, deep=deep))
    return torch.stack(out)


def image_features(pixels, tokens, weights, heads):
    """Image features (B, e) of images (B, 3, H, W) with the prompts (m, V) of each layer."""
    return torch.stack([images.encode(x, weights, heads, tokens=tokens) for x in pixels])


def couplings(contexts, linears):
    """Image prompts of each layer: F_i(P_i) = P_i W_i^T + b_i."""
    return [ctx @ weight.T + bias for ctx, (weight, bias) in zip(contexts, linears, strict=True)]
