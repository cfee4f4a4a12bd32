"""SoftCPT from its equations, class by class.

r_t = g([SOS] U task_t . [EOT]), or learned (SoftCPT*, as read here);
s_tc = g([SOS] V class_tc . [EOT]);
S = W r_t, or W of class and task feature; w_tc = g([SOS] S class_tc . [EOT]).
"""

import torch

from tests.reference.prompts import features


def context(kind, weight, task, cls, width):
    """S (m, d) of one task feature (e,) and, if given, one class feature (e,)."""
    if cls is None:
        joined = task
    elif kind == "lin":
        joined = torch.cat([cls, task])  # the class comes first
    elif kind == "linmean":
        joined = (cls + task) / 2
    else:
        joined = cls
    flat = joined @ weight
    return torch.stack([flat[i : i + width] for i in range(0, len(flat), width)])


def text_features(model, names, owner, positions, learned, kind="lin", class_mask=None):
    """Text features (C, e); a zero row where ``class_mask`` drops the class.

    Args:
        model: arguments of ``features`` that are the same everywhere: weights, heads, quick.
        names: ``tasks`` and ``classes``, each a list of (name, tail) token ids.
        owner: task of each class.
        positions: of the "task", "class" and "final" prompts.
        learned: "U" (M, d) or (T, M, d), or in its place "R" (T, e), the r_t; "V" None, (K, d) or
            (C, K, d); "W".
    """
    u, r, v, weight = (learned.get(key) for key in "URVW")
    width = model["weights"]["positional_embedding"].shape[1]
    out = []
    for c, t in enumerate(owner):
        if class_mask is not None and not class_mask[c]:
            out.append(torch.zeros(model["weights"]["text_projection"].shape[1]).to(weight))
            continue
        if r is not None:
            task = r[t]
        else:
            own = u[t] if u.dim() == 3 else u
            task = features([names["tasks"][t]], [own], positions["task"], **model)[0]
        cls = None
        if v is not None:
            own = v[c] if v.dim() == 3 else v
            cls = features([names["classes"][c]], [own], positions["class"], **model)[0]
        made = context(kind, weight, task, cls, width)
        out.append(features([names["classes"][c]], [made], positions["final"], **model)[0])
    return torch.stack(out)
