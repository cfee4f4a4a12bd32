"""Samplers that decide how many images of each task an epoch has, as a function of (seed, epoch).

Within an epoch, an image of a task is drawn again only after all others of the task.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from .datasets import Datum
from .samplers import stable_seed

EQUAL, TEMPERATURE = "EqualTaskSampler", "TemperatureTaskSampler"
ROUND_ROBIN = "RoundRobinTaskSampler"


def images_by_task(items: Sequence[Datum]) -> dict[int, list[int]]:
    """The indices of the images of each task that has any, by the number of the task."""
    found: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        found.setdefault(item.task, []).append(index)
    return dict(sorted(found.items()))


def divide(total: int, shares: Sequence[float]) -> list[int]:
    """``total`` divided in proportion to ``shares``, which sum to 1, by largest remainders."""
    exact = [total * share for share in shares]
    # 0.07 * 100 is a little above 7 in floating point; a quotient below 1e-9 of a whole is whole
    counts = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


class TaskSampler(Sampler[int]):
    """A fixed number of images of each task per epoch, shuffled.

    With n_t images of task t, its share of an epoch is p_t = n_t^(1/temperature) / sum of these
    over tasks: 1 is the share that the task has of all images, infinity the same for every task.

    Args:
        length: ``images``: an epoch has as many images as there are for training; ``all``: so many
            that each is drawn at least once.
    """

    def __init__(
        self,
        items: Sequence[Datum],
        seed: int = 0,
        temperature: float = math.inf,
        length: str = "images",
    ):
        self.seed, self.epoch = seed, 0
        self.by_task = images_by_task(items)
        sizes = [len(images) for images in self.by_task.values()]
        # relative to the largest task, so that a temperature near 0 does not overflow
        powers = [(size / max(sizes)) ** (1 / temperature) for size in sizes]
        shares = [power / sum(powers) for power in powers]
        total = len(items)
        if length == "all":
            needed = (size / share for size, share in zip(sizes, shares, strict=True) if share)
            total = math.ceil(max(needed) - 1e-9)
        counts = divide(total, shares)
        self.images_per_epoch = dict(zip(self.by_task, counts, strict=True))  # by task

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the images and their order."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        drawn: list[int] = []
        for task, count in self.images_per_epoch.items():
            stream = _Stream(self.by_task[task], stable_seed(self.seed, self.epoch, "task", task))
            drawn += stream.take(count)
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self.epoch, "order"))
        order = torch.randperm(len(drawn), generator=generator).tolist()
        return iter([drawn[i] for i in order])

    def __len__(self) -> int:
        return sum(self.images_per_epoch.values())


class RoundRobinBatches(Sampler[list[int]]):
    """Batches of one task each, the tasks in turn; an epoch starts where the last one stopped.

    A batch has ``batch_size`` images, or all of a task that has fewer.

    Args:
        length: ``images``: as many batches as without tasks, the number of training images over
            the batch size; ``all``: so many that each image is drawn at least once.
    """

    def __init__(
        self, items: Sequence[Datum], batch_size: int, seed: int = 0, length: str = "images"
    ):
        self.seed, self.epoch = seed, 0
        self.by_task = images_by_task(items)
        self.sizes = {task: min(batch_size, len(found)) for task, found in self.by_task.items()}
        self._num_batches = max(len(items) // batch_size, 1)
        if length == "all":
            longest = max(-(-len(found) // batch_size) for found in self.by_task.values())
            self._num_batches = longest * len(self.by_task)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the batches."""
        self.epoch = epoch

    @property
    def turns(self) -> list[int]:
        """The task of each batch of the epoch."""
        tasks = list(self.by_task)
        first = self.epoch * len(self)
        return [tasks[(first + i) % len(tasks)] for i in range(len(self))]

    def __iter__(self) -> Iterator[list[int]]:
        streams = {
            task: _Stream(images, stable_seed(self.seed, self.epoch, "task", task))
            for task, images in self.by_task.items()
        }
        for task in self.turns:
            yield streams[task].take(self.sizes[task])

    def __len__(self) -> int:
        return self._num_batches


class _Stream:
    """The images of a task in one random order after the other."""

    def __init__(self, images: Sequence[int], seed: int):
        self._images, self._left = images, []
        self._generator = torch.Generator().manual_seed(seed)

    def take(self, count: int) -> list[int]:
        """The next ``count`` images."""
        while len(self._left) < count:
            order = torch.randperm(len(self._images), generator=self._generator).tolist()
            self._left += [self._images[i] for i in order]
        taken, self._left = self._left[:count], self._left[count:]
        return taken
