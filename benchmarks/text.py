"""The text tower alone: contexts forward and backward, one per task, for all its class names.

    python -m benchmarks text

Also contexts that every image has for itself, as CoCoOp's, for the names of all classes; and a
tower without a causal mask, as SigLIP's, whose prompts are encoded at full length.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from benchmarks._plain import PlainStep, plain_clip
from benchmarks._sides import NAIVE, compare
from benchmarks.gpu import make_space
from clip import load_backbone
from clip.backbones import CLIP_PREPROCESS, from_state
from clip.text import Prompts
from prompting.prompt_learner import PromptLearner, scatter_rows

CASES = {
    "120 classes in 6 tasks": {"sizes": [20] * 6},
    "360 classes in 6 tasks": {"sizes": [60] * 6},
    "8 images x 20 classes": {
        "sizes": [20],
        "images": 8,
        "n_ctx": 4,
        "backbone": "ViT-B-16/random",
    },
    "bidirectional, 120 classes in 6 tasks": {"sizes": [20] * 6, "causal": False},
    "bidirectional, 2 of the 6 tasks in the batch": {
        "sizes": [20] * 6,
        "causal": False,
        "present": 2,
    },
}
SMALL = {
    "12 classes in 3 tasks": {"sizes": [4] * 3},
    "bidirectional, 1 of 3 tasks": {"sizes": [4] * 3, "causal": False, "present": 1},
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
    causal: bool = True,
    present: int = 0,
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """A pass forward and backward; it returns the features (n, e) and the contexts' gradient.

    Args:
        sizes: classes of each task. images: a context for each of so many, not for each task.
        causal: False takes the mask from the text tower.
        present: the number of tasks that the batch has images of; 0: all.
    """
    clip_model, space = load_backbone(backbone), make_space(tuple(sizes))
    clip_model = clip_model if causal else _without_mask(clip_model)
    used = space.owner < (present or len(sizes)) if not images else slice(None)
    contexts = images or len(sizes)
    generator = torch.Generator().manual_seed(0)
    start = 0.02 * torch.randn(contexts, n_ctx, clip_model.text_tower.width, generator=generator)
    pull = torch.randn(clip_model.text_tower.out_dim, generator=generator)
    if images:
        group = torch.arange(images).repeat_interleave(space.num_classes)
    else:
        group = space.owner
    make = _plain if side == NAIVE else _packed
    encode = make(clip_model, space, group, images, n_ctx, used if present else None)

    def step():
        ctx = start.clone().requires_grad_()
        features = encode(ctx)[used]
        (features @ pull).square().sum().backward()
        return features.detach(), ctx.grad

    return step


def _without_mask(clip_model):
    """The same weights with attention in both directions."""
    config = copy.deepcopy(clip_model.config)
    config["text_cfg"]["no_causal_mask"] = True
    state = clip_model.state_dict()
    return from_state(state, config, CLIP_PREPROCESS, f"{clip_model.name} without a mask")


def _plain(clip_model, space, group, images: int, n_ctx: int, used) -> Callable:
    model = plain_clip(clip_model.config, clip_model.state_dict())
    names = space.classnames * (images or 1)
    step = PlainStep(model, [], names, space.owner, {"ctx": torch.zeros(n_ctx, 1)})
    return lambda ctx: step.encode(step.final_tokens, ctx[group])


def _packed(clip_model, space, group, images: int, n_ctx: int, used) -> Callable:
    text = clip_model.text_tower
    learner = PromptLearner(space.classnames, text, n_ctx, learn=False)

    def encode(ctx):
        if not images:
            return scatter_rows(text.encode(learner(ctx, group, used)), used)
        once = learner(ctx, torch.zeros(space.num_classes, dtype=torch.long))
        rows = torch.arange(space.num_classes).repeat(images)
        return text.encode(Prompts(once.prefix, once.suffix, group, once.eot, rows))

    return encode
