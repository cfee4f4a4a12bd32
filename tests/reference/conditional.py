"""CoCoOp and the chain of CoT-PT from their equations: one image, one step, one class at a time.

A Meta-Net is a tuple of its weights (w1, b1, w2, b2).
"""

import torch

from tests.reference.prompts import features


def meta_net(v, net):
    """w2 relu(w1 v + b1) + b2 of one vector, one row at a time."""
    w1, b1, w2, b2 = net
    hidden = torch.stack([torch.clamp(row @ v + b, min=0) for row, b in zip(w1, b1, strict=True)])
    return torch.stack([row @ hidden + b for row, b in zip(w2, b2, strict=True)])


def unit(v):
    """v / |v|."""
    return v / torch.sqrt((v * v).sum())


def cocoop_context(image, ctx, net):
    """v_j + h(x), token by token, (m, d)."""
    shift = meta_net(unit(image), net)
    return torch.stack([token + shift for token in ctx])


def chain_contexts(image, ctxs, nets, carry, link, weights):
    """P_1 ... P_N, each (m, d), of one image.

    Args:
        ctxs: (N, m, d). nets: one Meta-Net per step. weights: of the N - 1 links.
        link: "convex": (1 - w) before + w own; "additive": w before + own.
    """
    out, shift = [], torch.zeros(ctxs.shape[-1]).to(ctxs)
    for i in range(len(ctxs)):
        shift = carry * shift + meta_net(unit(image), nets[i])
        own = torch.stack([token + shift for token in ctxs[i]])
        if i == 0:
            out.append(own)
            continue
        w, before = weights[i - 1], out[i - 1]
        out.append((1 - w) * before + w * own if link == "convex" else w * before + own)
    return out


def link_weights(image, controller, low, high):
    """low + (high - low) / (1 + exp(-z)) for each output z of the controller."""
    return [low + (high - low) / (1 + torch.exp(-z)) for z in meta_net(unit(image), controller)]


def text_features(contexts, names, position, model):
    """(B, C, e): every name in the context (m, d) of every image."""
    return torch.stack([features(names, [ctx] * len(names), position, **model) for ctx in contexts])


def logits(images, text, scale):
    """Logits (B, C): every image against its own text features (B, C, e)."""
    return torch.stack(
        [
            torch.stack([torch.exp(scale) * (unit(v) @ unit(w)) for w in rows])
            for v, rows in zip(images, text, strict=True)
        ]
    )
