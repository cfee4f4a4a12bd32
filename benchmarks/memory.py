"""Peak memory and time of a training step of many classes as ``MODEL.TEXT_CHUNK`` falls.

    python -m benchmarks memory

SoftCPT-NATA on warm features, RN50, batch 32: ImageNet's number of classes in one task, and 10,000
classes in ten. Both sides are ours; "naive" keeps the activations of more rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from benchmarks._sides import in_a_process, row
from benchmarks.gpu import ON_CPU, STEP, Size, make_batch, make_space, make_trainer

IMAGENET, MANY = [1000], [1000] * 10
CASES = ((IMAGENET, (0, 2048)), (MANY, (16384, 2048)))
SMALL = (([40, 40], (0, 64)),)


def run(small: bool = False) -> list[dict]:
    """All rows: the first chunk against each of the others; 0 is no chunks."""
    backbone = "tiny/random" if small else "RN50/random"
    rows = []
    for sizes, chunks in SMALL if small else CASES:
        found = [
            in_a_process("benchmarks.memory", str(c), _case(sizes, backbone), "default malloc")
            for c in chunks
        ]
        many, *fewer = found
        for chunk, few in zip(chunks[1:], fewer, strict=True):
            before = f"{chunks[0]:,} rows at once" if chunks[0] else "all rows at once"
            what = f"{sum(sizes):,} classes, {before} against {chunk:,}"
            peaks = f"peak {many['peak'] / 1e9:.2f} and {few['peak'] / 1e9:.2f} GB"
            rows.append(row(what, many["seconds"], few["seconds"], peaks))
    return rows


def _case(sizes: list[int], backbone: str) -> dict:
    return {"sizes": sizes, "backbone": backbone}


def prepare(chunk: str, sizes: list[int], backbone: str, batch: int = 32) -> Callable:
    """A training step on stored image features; it returns the learned tensors."""
    size = Size((backbone,), tuple(sizes), batch, steps=1)
    space = make_space(size.classes)
    trainer = make_trainer("NATA", backbone, size, space, "MODEL.TEXT_CHUNK", chunk, *ON_CPU)
    trainer.epoch = 0
    data = make_batch(trainer, size)
    del data["img"]
    data["feat"] = torch.randn(batch, trainer.clip.text_tower.out_dim)
    step = functools.partial(trainer.train_step, data, STEP)
    learned = list(trainer.model.prompter.state_dict().values())

    def timed() -> list[torch.Tensor]:
        step()
        return learned

    return timed
