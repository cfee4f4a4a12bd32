"""Random prompts for a text tower, and what a pass of them computes."""

import dataclasses

import torch

from clip import Prompts


def random_prompts(seed, width=32):
    """Groups in any order, some of one name or none; names of any length."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    groups, begin, n = int(number(1, 6)), int(number(0, 20)), int(number(1, 30))
    longest = int(number(1, 50))
    rows = number(0, n, n + 7) if seed % 3 == 0 else None
    count = n if rows is None else len(rows)
    shared = torch.randn(groups, begin, width, generator=generator)
    shared[:, :1] = shared[:1, :1]  # SOS
    own = torch.randn(n, longest + 3, width, generator=generator)
    group = number(0, groups, count)
    if seed % 4 == 0:  # no two alike
        shared = shared[group] + torch.randn(count, 1, 1, generator=generator)
        shared[:, :1] = shared[:1, :1]
        group = torch.arange(count).flip(0)
    return Prompts(shared, own, group, number(0, longest, n), rows)


def gradients(tower, prompts):
    """Features, and gradients of the pieces; SOS, which is a constant, has none."""
    leaves = [t.clone().requires_grad_() for t in (prompts.prefix, prompts.suffix)]
    shared = torch.cat([leaves[0][:, :1].detach(), leaves[0][:, 1:]], 1)
    out = tower.encode(dataclasses.replace(prompts, prefix=shared, suffix=leaves[1]))
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    return [out, *torch.autograd.grad((out * pull).sum(), leaves)]
