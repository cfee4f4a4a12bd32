"""Rows of text divided among the processes of a run."""

from __future__ import annotations

from dataclasses import replace

import torch

from clip.text import Prompts, TextTower
from dassl.utils import distributed

FEWEST_ROWS = 8  # for each process: fewer are not worth a message


class DividedText:
    """A text tower of which each process encodes its share of the prompts, and all get all.

    It answers to the names of the tower that it stands in for.

    Args:
        tower: the whole frozen tower, which every process has.
    """

    def __init__(self, tower: TextTower):
        self.tower = tower

    def __getattr__(self, name: str):
        return getattr(self.tower, name)

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e), not normalised; the gradient is the run's, not the share's."""
        n = len(prompts.group)
        if n < FEWEST_ROWS * distributed.world_size():
            return self.tower.encode(prompts)
        suffix = self.tower.encode(select(prompts, distributed.share(n)))
        return distributed.gather_rows(suffix, n)


def select(prompts: Prompts, part: slice) -> Prompts:
    """Some of the prompts, with the beginnings that they need."""
    groups, group = prompts.group[part].unique(return_inverse=True)
    chosen = prompts.with_groups(groups, group)
    if prompts.suffix_index is None:
        return replace(chosen, suffix=prompts.suffix[part], eot=prompts.eot[part])
    return replace(chosen, suffix_index=prompts.suffix_index[part])
