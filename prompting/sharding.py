"""Prompts divided among the processes of a run."""

from __future__ import annotations

from dataclasses import replace

import torch

from clip.text import Prompts
from dassl.utils import distributed

from .encoder_wrapper import EncoderWrapper

MIN_PROMPTS = 8  # per process; exchanging fewer costs more time than it saves


class ShardedEncoder(EncoderWrapper):
    """Encodes a share of the prompts in each process and gathers the features of all."""

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e), not normalised; gradients are those of the whole run."""
        n = len(prompts.group)
        if n < MIN_PROMPTS * distributed.world_size():
            return self.encoder.encode(prompts)
        features = self.encoder.encode(select(prompts, distributed.share(n)))
        return distributed.gather_rows(features, n)


def select(prompts: Prompts, part: slice) -> Prompts:
    """A slice of the prompts, with the prefixes that they use."""
    groups, group = prompts.group[part].unique(return_inverse=True)
    chosen = prompts.with_groups(groups, group)
    if prompts.suffix_index is None:
        return replace(chosen, suffix=prompts.suffix[part], eot=prompts.eot[part])
    return replace(chosen, suffix_index=prompts.suffix_index[part])
