"""The order of the images in an epoch, as a function of (seed, epoch)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from dassl.utils import unknown_name


def stable_seed(*parts: object) -> int:
    """A seed in [0, 2**63) that is the same in every process and on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class RandomSampler(Sampler[int]):
    """A permutation of the images, which only :meth:`set_epoch` changes."""

    def __init__(self, data_source: Sized, seed: int = 0):
        self.data_source, self.seed, self.epoch = data_source, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the permutation."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self.epoch, "order"))
        return iter(torch.randperm(len(self), generator=generator).tolist())

    def __len__(self) -> int:
        return len(self.data_source)


class SequentialSampler(Sampler[int]):
    """The images in the order of the list."""

    def __init__(self, data_source: Sized, seed: int = 0):
        self.data_source = data_source

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the order is the same in all epochs."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self.data_source)


SAMPLERS = {"RandomSampler": RandomSampler, "SequentialSampler": SequentialSampler}


def build_sampler(name: str, data_source: Sized, seed: int = 0) -> Sampler[int]:
    """The sampler ``name`` over ``data_source``, without regard to tasks."""
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)
    return SAMPLERS[name](data_source, seed)
