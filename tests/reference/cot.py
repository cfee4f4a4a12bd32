"""The chain of CoT-PT from its equations: one image, one step, one class at a time.

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


def aggregate(kind, steps, query=None):
    """One feature (e,) of one image and class from its N step features: a list of (e,)."""
    steps = [unit(z) for z in steps]
    if kind == "last":
        return steps[-1]
    if kind == "linear":
        return sum(steps) / len(steps)
    powers = [torch.exp(query @ z) for z in steps]
    return sum(p / sum(powers) * z for p, z in zip(powers, steps, strict=True))


def batch_contrast(scores, labels, tasks, sizes):
    """Mean over images of the cross-entropy of their class text between the images of the task.

    ``scores`` (B, C): every image against every class in the image's own prompts.
    """
    starts = [sum(sizes[:t]) for t in range(len(sizes))]
    total = 0
    for label, task in zip(labels, tasks, strict=True):
        column = starts[task] + label
        rivals = [b for b in range(len(labels)) if tasks[b] == task]
        log_sum = torch.log(sum(torch.exp(scores[b, column]) for b in rivals))
        same = [b for b in rivals if labels[b] == label]
        total = total + sum(log_sum - scores[b, column] for b in same) / len(same)
    return total / len(labels)


def top_classes(image, texts, count):
    """The ``count`` classes whose texts (C, e) are most like an image (e,), in ascending order."""
    left, found = list(range(len(texts))), []
    for _ in range(min(count, len(texts))):
        best = max(left, key=lambda c: float(unit(image) @ unit(texts[c])))
        left.remove(best)
        found.append(best)
    return sorted(found)
