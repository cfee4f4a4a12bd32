"""Low-rank updates of frozen attention layers. https://arxiv.org/abs/2106.09685"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from dassl.data.samplers import stable_seed

PARTS = ("q", "k", "v")


class SeededDropout:
    """Dropout whose masks are a function of a seed, the step and the place in the model.

    So a resumed training draws the masks that it would have drawn, and activations that are
    computed again get the masks of the first time.
    """

    def __init__(self, share: float):
        self.share, self.seed, self.step = share, 0, 0

    def __call__(self, x: torch.Tensor, place: int) -> torch.Tensor:
        """x with a ``share`` of its values set to 0, the others scaled up."""
        if not self.share:
            return x
        generator = torch.Generator(x.device)
        generator.manual_seed(stable_seed(self.seed, self.step, place, "dropout"))
        mask = torch.empty_like(x).bernoulli_(1 - self.share, generator=generator)
        return x * mask / (1 - self.share)


class LowRankUpdate(nn.Module):
    """What is added to the queries, keys and values (..., 3 d) of tokens x (..., d).

        scale B A drop(x) for each of ``parts``, 0 for the others; A (r, d), B (d, r), at first 0

    Args:
        parts: which of "q", "k", "v" are updated.
        place: a number of this update, for its dropout.
    """

    def __init__(
        self,
        width: int,
        rank: int,
        scale: float,
        parts: tuple[str, ...],
        dropout: SeededDropout,
        place: int,
    ):
        super().__init__()
        bound = 1 / math.sqrt(width)  # Kaiming's uniform for a = sqrt(5), as a linear layer starts
        self.down = nn.Parameter(torch.empty(len(parts), rank, width).uniform_(-bound, bound))  # A
        self.up = nn.Parameter(torch.zeros(len(parts), width, rank))  # B
        self.parts, self.scale, self.dropout, self.place = parts, scale, dropout, place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The update (..., 3 d), in the dtype of x."""
        inputs, out = x.to(self.down.dtype), []
        for number, part in enumerate(PARTS):
            if part not in self.parts:
                out.append(torch.zeros_like(inputs))
                continue
            i = self.parts.index(part)
            dropped = inputs
            if self.training and torch.is_grad_enabled():
                dropped = self.dropout(inputs, len(PARTS) * self.place + number)
            out.append(F.linear(F.linear(dropped, self.down[i]), self.up[i]))
        return (self.scale * torch.cat(out, dim=-1)).to(x.dtype)

    def weight(self) -> torch.Tensor:
        """The update as a weight (3 d, d): what merging adds to that of the frozen projection."""
        width = self.up.shape[1]
        rows = [self.up.new_zeros(width, width) for _ in PARTS]
        for part, up, down in zip(self.parts, self.up, self.down, strict=True):
            rows[PARTS.index(part)] = self.scale * up @ down
        return torch.cat(rows)
