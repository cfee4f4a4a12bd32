"""The text tower alone: contexts forward and backward, one per task, for all its class names.

    python -m benchmarks text

Also contexts that every image has for itself, as CoCoOp's, for the names of all classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks._plain import PlainStep, plain_clip
from benchmarks._sides import NAIVE, compare
from benchmarks.gpu import make_space
from clip import load_backbone
from clip.text import Prompts
from prompting.prompt_learner import PromptLearner

CASES = {
    "120 classes in 6 tasks": {"sizes": [20] * 6},
    "360 classes in 6 tasks": {"sizes": [60] * 6},
    "8 images x 20 classes": {
        "sizes": [20],
        "images": 8,
        "n_ctx": 4,
        "backbone": "ViT-B-16/random",
    },
}
SMALL = {
    "12 classes in 3 tasks": {"sizes": [4] * 3},
    "2 images x 5 classes": {"sizes": [5], "images": 2, "n_ctx": 4, "backbone": "ViT-B-16/random"},
}


def run(small: bool = False) -> list[dict]:
    """All rows."""
    return compare("benchmarks.text", SMALL if small else CASES, {"ours": ""})


def prepare(
    side: str,
    sizes: list[int],
    n_ctx: int = 16,
    images: int = 0,
    backbone: str = "RN50/random",
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """A pass forward and backward; it returns the features (n, e) and the contexts' gradient.

    Args:
        sizes: classes of each task. images: a context for each of so many, not for each task.
    """
    clip_model, space = load_backbone(backbone), make_space(tuple(sizes))
    contexts = images or len(sizes)
    generator = torch.Generator().manual_seed(0)
    start = 0.02 * torch.randn(contexts, n_ctx, clip_model.text_tower.width, generator=generator)
    pull = torch.randn(clip_model.text_tower.out_dim, generator=generator)
    if images:
        group = torch.arange(images).repeat_interleave(space.num_classes)
    else:
        group = space.owner
    encode = (_plain if side == NAIVE else _packed)(clip_model, space, group, images, n_ctx)

    def step():
        ctx = start.clone().requires_grad_()
        features = encode(ctx)
        (features @ pull).square().sum().backward()
        return features.detach(), ctx.grad

    return step


def _plain(clip_model, space, group, images: int, n_ctx: int) -> Callable:
    model = plain_clip(clip_model.config, clip_model.state_dict())
    names = space.classnames * (images or 1)
    step = PlainStep(model, [], names, space.owner, {"ctx": torch.zeros(n_ctx, 1)})
    return lambda ctx: step.encode(step.final_tokens, ctx[group])


def _packed(clip_model, space, group, images: int, n_ctx: int) -> Callable:
    text = clip_model.text_tower
    learner = PromptLearner(space.classnames, text, n_ctx, learn=False)

    def encode(ctx):
        if not images:
            return text.encode(learner(ctx, group))
        once = learner(ctx, torch.zeros(space.num_classes, dtype=torch.long))
        rows = torch.arange(space.num_classes).repeat(images)
        return text.encode(Prompts(once.prefix, once.suffix, group, once.eot, rows))

    return encode
