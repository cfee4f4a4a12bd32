"""A training step of every variant at Plant-6's size: RN50, 116 classes in 6 tasks, batch 32.

    python -m benchmarks step

The naive step encodes its images, as the released code does. Beside it stand our step on images,
and our step on stored image features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from benchmarks._sides import NAIVE, compare
from benchmarks.gpu import (
    ON_CPU,
    STEP,
    VARIANTS,
    Size,
    make_batch,
    make_plain,
    make_space,
    make_trainer,
)
from clip import backbones

PLANT6 = [36, 5, 9, 15, 12, 39]
SIDES = {"images": "images encoded", "warm": "warm features"}


def run(small: bool = False) -> list[dict]:
    """All rows."""
    if small:
        return compare("benchmarks.step", _cases(("NATA", "CSTA"), [5, 3], 4), SIDES)
    return compare("benchmarks.step", _cases(VARIANTS, PLANT6, 32), SIDES)


def _cases(variants, sizes: list[int], batch: int) -> dict[str, dict]:
    return {v: {"variant": v, "sizes": sizes, "batch": batch} for v in variants}


def prepare(
    side: str, variant: str, sizes: list[int], batch: int, backbone: str = "RN50/random"
) -> Callable[[], list[torch.Tensor]]:
    """A training step; it returns the learned tensors."""
    size = Size((backbone,), tuple(sizes), batch, steps=1)
    trainer = make_trainer(variant, backbone, size, make_space(size.classes), *ON_CPU)
    trainer.epoch = 0
    data = make_batch(trainer, size)
    if side == NAIVE:
        naive = make_plain(trainer)
        step = functools.partial(naive, data["img"], data["label"], data["task"])
        learned = list(naive.learned.values())
        del trainer  # the naive side's memory is its own
        backbones._cached.cache_clear()
    else:
        learned = list(trainer.model.prompter.state_dict().values())
        if side == "warm":
            data["feat"] = trainer.image_features(data)["global"]
            del data["img"]
        step = functools.partial(trainer.train_step, data, STEP)

    def timed():
        step()
        return learned

    return timed
