"""An evaluation of 1,000 images with warm features: RN50, SoftCPT, 116 classes in 6 tasks.

    python -m benchmarks evaluation

The naive side encodes the prompts for every batch of 100 images, as the released code does; its
image features are given, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks._sides import NAIVE, compare
from benchmarks.gpu import ON_CPU, Size, make_plain, make_space, make_trainer
from benchmarks.step import PLANT6

BATCH = 100


def run(small: bool = False) -> list[dict]:
    """All rows."""
    case = {"variant": "NATA", "sizes": [5, 3] if small else PLANT6, "images": 1000}
    return compare("benchmarks.evaluation", {"SoftCPT-NATA": case}, {"ours": ""})


def prepare(
    side: str, variant: str, sizes: list[int], images: int, backbone: str = "RN50/random"
) -> Callable[[], torch.Tensor]:
    """A pass over the images; it returns their logits (N, C)."""
    size = Size((backbone,), tuple(sizes), BATCH, steps=1)
    trainer = make_trainer(variant, backbone, size, make_space(size.classes), *ON_CPU)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(images, trainer.clip.text_tower.out_dim, generator=generator)
    batches = features.split(BATCH)
    if side != NAIVE:

        @torch.no_grad()
        def ours():
            text = trainer.model.fixed_text_features()
            logits = [trainer.forward({"global": x}, text_features=text).logits for x in batches]
            return torch.cat(logits)

        return ours
    plain = make_plain(trainer)

    @torch.no_grad()
    def naive():
        scale = plain.model.logit_scale.exp()
        return torch.cat([scale * F.normalize(x, dim=-1) @ plain.text().T for x in batches])

    return naive
