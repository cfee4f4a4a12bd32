"""A training step of the methods with prompts in both towers: ViT-B/16, 47 classes, batch 4.

    python -m benchmarks deep

The naive step encodes every prompt at its full length. PromptSRC's teacher is encoded in every
step there, and with stored features ("warm") not at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from benchmarks._plain import plain_clip
from benchmarks._plain_deep import PlainDeepStep
from benchmarks._sides import NAIVE, compare
from benchmarks.gpu import ON_CPU, STEP, Size, make_batch, make_space, make_trainer
from clip import backbones

METHODS = ("VPT", "IVLP", "MaPLe", "PromptSRC")
SMALL_DEPTHS = {
    "VPT": {"PROMPT_DEPTH_VISION": 3},
    "IVLP": {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2},
    "MaPLe": {"PROMPT_DEPTH": 2},
    "PromptSRC": {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2},
}


def run(small: bool = False) -> list[dict]:
    """All rows."""
    size = (5, 3, "tiny-vit/random") if small else (47, 4, "ViT-B-16/random")
    keys = ("classes", "batch", "backbone")
    rows = []
    for method in METHODS[-1:] if small else METHODS:
        sides = {"images": ""}
        if method == "PromptSRC":
            sides["warm"] = "teacher stored"
        case = {"method": method, **dict(zip(keys, size, strict=True))}
        rows += compare("benchmarks.deep", {method: case}, sides)
    return rows


def prepare(
    side: str, method: str, classes: int, batch: int, backbone: str
) -> Callable[[], list[torch.Tensor]]:
    """A training step; it returns the learned tensors."""
    size = Size((backbone,), (classes,), batch, steps=1)
    depths = SMALL_DEPTHS[method] if backbone.startswith("tiny") else {}
    words = [w for k, v in depths.items() for w in (f"TRAINER.{method.upper()}.{k}", str(v))]
    if side == "checkpoint":
        words += ["COMPUTE.IMAGE_CHECKPOINT", "True"]
    trainer = make_trainer(method, backbone, size, make_space(size.classes), *ON_CPU, *words)
    trainer.epoch = 0
    data = make_batch(trainer, size)
    if side == NAIVE:
        naive = _plain(trainer)
        step = functools.partial(naive, data["img"], data["label"])
        learned = list(naive.learned.values())
        del trainer
        backbones._cached.cache_clear()
    else:
        learned = list(trainer.model.prompter.parameters())
        if side == "warm":
            data["teacher"] = trainer.clip.encode_image(data["img"])
        step = functools.partial(trainer.train_step, data, STEP)

    def timed():
        step()
        return learned

    return timed


def _plain(trainer) -> PlainDeepStep:
    """The naive step of the same weights, names and learned numbers."""
    clip_model, prompter = trainer.clip, trainer.model.prompter
    state = {key: value.clone() for key, value in clip_model.state_dict().items()}
    model = plain_clip(clip_model.config, state)
    contexts = getattr(prompter, "contexts", None)
    return PlainDeepStep(
        model,
        trainer.dm.space.classnames,
        dict(prompter.named_parameters()),
        None if contexts is None else contexts.words,
        prompter.features if contexts is None else None,
        trainer.templates.features if trainer.uses_templates else None,
        lr=trainer.cfg.OPTIM.LR,
    )
