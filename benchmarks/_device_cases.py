"""What is checked on a device: every registered method on a small suite, with some options."""

from __future__ import annotations

from dataclasses import dataclass

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from dassl.engine import TRAINER_REGISTRY

AUGMENTED = ("random_resized_crop", "random_flip", "normalize")
VARIANTS = {  # options beside the default ones, as KEY VALUE words; keys of the method's node
    "MTCoOp": {
        "CSTS": ("CSC", "True", "CLASS_CSC", "True", "TASK_CSC", "True"),
        "task vectors": ("TASK_VECTORS", "True"),
        # several steps per batch: at a rate of 0.01, rounding would grow to a third of the way
        "upstream's steps": ("UPSTREAM_STEPS", "True", "OPTIM.LR", "0.002"),
        "transformer": ("PG_TYPE", "transformer"),
        "depth 2": ("DEPTH", "2"),
        "in depth, anchored": (
            *("DEPTH", "2", "IMAGE_PROMPTS", "True", "ANCHOR_IMAGE", "10", "ANCHOR_LOGITS", "1"),
            *("MODEL.BACKBONE.NAME", "tiny-vit"),
        ),
    },
    "CoOp": {"context per class": ("CSC", "True")},
    "TipAdapter": {"fine-tuned": ("FINETUNE", "True")},
    "DePT": {
        "on MaPLe": (
            *("METHOD", "MaPLe", "TRAINER.MAPLE.PROMPT_DEPTH", "2"),
            *("MODEL.BACKBONE.NAME", "tiny-vit"),
        ),
    },
}
NEEDED = {  # options without which a method does not run on the tiny CLIP; depths of tiny-vit
    "CLIPLoRA": {"ITERATIONS": "0", "DROPOUT": "0"},  # a GPU drops other elements than a CPU
    "IVLP": {"PROMPT_DEPTH_TEXT": "2", "PROMPT_DEPTH_VISION": "3"},
    "MaPLe": {"PROMPT_DEPTH": "2"},
    "MMA": {"START": "1", "END": "2"},
    "PromptSRC": {"PROMPT_DEPTH_TEXT": "2", "PROMPT_DEPTH_VISION": "3"},
    "TCP": {"LAYER": "1"},
    "TwoStage": {"ITERATIONS": "0"},
    "VPT": {"PROMPT_DEPTH_VISION": "3"},
}
VIT = (
    "CLIPLoRA",
    "IVLP",
    "MaPLe",
    "MMA",
    "PromptSRC",
    "TwoStage",
    "VPT",
)  # methods that learn in a vision transformer
PAIRS = {"captions": "DigitCaptions", "questions": "DigitQuestions"}
LARGE = {  # backbones of full size with random weights
    "RN50": ("RN50/random", ("CoOp", "MTCoOp", "PLOT")),
    "RN50 in TF32": ("RN50/random", ("CoOp",)),
    "ViT-B/16": ("ViT-B-16/random", ("MTCoOp",)),
}
FEW = ("fp32", "stored features", "CPU", "checkpoint", "fp16")  # what a variant may do otherwise


@dataclass(frozen=True)
class Case:
    """A method with its options on a dataset.

    Attributes:
        opts: KEY VALUE words of the configuration.
        checks: names in ``benchmarks._device_checks.CHECKS``; empty for all of them.
        exact: whether images and weights are such that a class wins by more than rounding.
    """

    name: str
    trainer: str
    opts: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    exact: bool = True


def every_case(small: bool = False) -> list[Case]:
    """All cases, the methods first; ``small`` leaves the large backbones out."""
    common = ("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TEST.BATCH_SIZE", "300")
    common += ("OPTIM.LR", "0.01", "OPTIM.MAX_EPOCH", "2")
    common += ("TRAIN.CHECKPOINT_FREQ", "1")
    names = TRAINER_REGISTRY.registered_names()
    tiny = ("MODEL.BACKBONE.NAME", "tiny", *common)
    digits = _digits("task1" if small else "base", *tiny)
    cases = [Case(name, name, (*digits, *_needed(name))) for name in names]
    cases += [] if small else _large(common)
    for name in names:
        if TRAINER_REGISTRY.get(name).pairs:
            cases += [_pairs(name, kind, tiny, () if small else FEW) for kind in PAIRS]
    for name, variants in VARIANTS.items():
        key = TRAINER_REGISTRY.get(name).KEY
        for about, switches in variants.items():
            words = [
                w if i % 2 or "." in w else f"TRAINER.{key}.{w}" for i, w in enumerate(switches)
            ]
            few = () if small else FEW
            cases.append(Case(f"{name}, {about}", name, (*digits, *words), few))
    return cases


def _needed(name: str) -> tuple[str, ...]:
    """KEY VALUE words without which a method does not run."""
    key = TRAINER_REGISTRY.get(name).KEY
    pairs = [(f"TRAINER.{key}.{option}", value) for option, value in NEEDED.get(name, {}).items()]
    pairs += [("MODEL.BACKBONE.NAME", "tiny-vit")] if name in VIT else []
    return tuple(word for pair in pairs for word in pair)


def _digits(tasks: str, *opts: str) -> tuple[str, ...]:
    """Digits7 with augmented images, or some of its tasks ("base": the first three)."""
    words = ("DATASET.NAME", "Digits7", "DATASET.SUBSAMPLE_TASKS", tasks, "DATASET.NUM_SHOTS", "4")
    words += ("INPUT.TRANSFORMS", repr(AUGMENTED), "DATALOADER.TRAIN_X.BATCH_SIZE", "8")
    return (*words, *opts)


def _pairs(name: str, kind: str, opts: tuple[str, ...], checks: tuple[str, ...]) -> Case:
    words = ("DATASET.NAME", PAIRS[kind], "DATASET.NUM_SHOTS", "48")
    words += ("INPUT.TRANSFORMS", "('normalize',)", "DATALOADER.TRAIN_X.BATCH_SIZE", "16")
    return Case(f"{name}, {kind}", name, (*words, *opts), checks)


def _large(common: tuple[str, ...]) -> list[Case]:
    """Backbones of full size; TF32 and a compiled image tower, which only a GPU's user chooses."""
    cases = []
    tf32, halves = ("COMPUTE.TF32", "True"), ("fp32", "fp16")
    for about, (backbone, names) in LARGE.items():
        opts = _digits("task1", *common, "MODEL.BACKBONE.NAME", backbone)
        rounded = "TF32" in about  # so it cannot equal the CPU
        opts, checks = ((*opts, *tf32), halves) if rounded else (opts, FEW)
        for name in names:
            own = checks
            if about == "RN50" and name == "PLOT":  # its gradients are too small for fp16 there
                own = tuple(check for check in checks if check != "fp16")
            cases.append(Case(f"{name}, {about}", name, opts, own, exact=False))
    tiny = _digits("task1", *common, "MODEL.BACKBONE.NAME", "tiny", "COMPUTE.COMPILE", "True")
    compiled = [Case("CoOp, compiled", "CoOp", tiny, halves)]
    compiled += [Case("CoOp, compiled, in TF32", "CoOp", (*tiny, *tf32), halves)]
    return compiled + cases
