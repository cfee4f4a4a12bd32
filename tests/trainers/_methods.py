"""All registered methods in small form, and measures of what they learned on the toy suite."""

from __future__ import annotations

import math
from pathlib import Path

import torch

import train
from dassl.config.node import read_yaml
from dassl.data import build_data_loader
from dassl.engine import TRAINER_REGISTRY
from tests.conftest import COUNTS, KeyOfSomeMethods

METHODS = TRAINER_REGISTRY.registered_names()
D = E = 64  # widths of the tiny backbones, that of the image tokens of tiny-vit too
M, U, V = 4, 3, 2  # context tokens: of the final prompts, and of SoftCPT's task and class features
CONTEXTS = {"N_CTX": M, "TASK_N_CTX": U, "CLASS_N_CTX": V}
CLASSES = [TRAINER_REGISTRY.get(name) for name in METHODS]
SMALL_CONTEXTS = {
    f"{cls.KEY}.{key}": value
    for cls in CLASSES
    for key, value in CONTEXTS.items()
    if key in cls.DEFAULTS
}
# without training, zero-shot CLIP teaches the opposite of the labels
SMALL_CONTEXTS |= {"PROGRAD.LAMBDA": 0.5, "TCP.W": 0.5}
SMALL_CONTEXTS["TCP.LAYER"] = 1  # the tiny text tower has two blocks
SMALL_CONTEXTS |= {"CLIPLORA.ITERATIONS": 0, "TWOSTAGE.ITERATIONS": 0}  # two epochs
SMALL_CONTEXTS |= {"MMA.START": 1, "MMA.END": 2, "MMA.DIM": 8}
# Forms of the methods: learned parameters with T = 3 tasks and C = 9 classes, name in tables.
FORMS = {
    ("CoOp",): (3 * M * D, "CoOp-CA"),
    ("CoOp", "COOP.CSC"): (9 * M * D, "CoOp-CS"),
    ("CoT",): (3 * (3 * M * D + 3 * (4 * E + 4 + 4 * D + D) + 4 * E + 4 + 4 * 2 + 2), "CoT"),
    ("MTCoOpHard",): (M * D, "CoOp-MT"),
    ("MTCoOpHard", "MTCOOPH.TSC"): (3 * M * D, "CoOp-MT (per task)"),
    ("MTCoOpHard", "MTCOOPH.CSC"): (9 * M * D, "CoOp-MT (per class)"),
    ("MTCoOp",): (E * M * D + U * D, "SoftCPT-NATA"),
    ("MTCoOp", "MTCOOP.TASK_CSC"): (E * M * D + 3 * U * D, "SoftCPT-NATS"),
    ("MTCoOp", "MTCOOP.CSC"): (2 * E * M * D + U * D + V * D, "SoftCPT-CATA"),
    ("MTCoOp", "MTCOOP.CSC", "MTCOOP.TASK_CSC"): (
        2 * E * M * D + 3 * U * D + V * D,
        "SoftCPT-CATS",
    ),
    ("MTCoOp", "MTCOOP.CSC", "MTCOOP.CLASS_CSC"): (
        2 * E * M * D + U * D + 9 * V * D,
        "SoftCPT-CSTA",
    ),
    ("MTCoOp", "MTCOOP.TASK_VECTORS"): (E * M * D + 3 * E, "SoftCPT*"),
    ("MTCoOp", "MTCOOP.TASK_VECTORS", "MTCOOP.CSC"): (
        2 * E * M * D + 3 * E + V * D,
        "SoftCPT* (CA)",
    ),
    ("CoCoOp",): (3 * (M * D + (E + 1) * E // 16 + (E // 16 + 1) * D), "CoCoOp"),
    ("KgCoOp",): (3 * M * D, "KgCoOp"),
    ("KgCoOp", "KGCOOP.CSC"): (9 * M * D, "KgCoOp"),
    ("PLOT",): (3 * 4 * M * D, "PLOT"),
    ("PLOT", "PLOT.CSC"): (9 * 4 * M * D, "PLOT"),
    ("PLOT", "PLOT.UNIFORM"): (3 * 4 * M * D, "PLOT (uniform plan)"),
    ("ProGrad",): (3 * M * D, "ProGrad"),
    ("ProGrad", "PROGRAD.CSC"): (9 * M * D, "ProGrad"),
    ("ProGrad", "PROGRAD.CTX_INIT"): (3 * M * D, "ProGrad"),
    ("ZeroshotCLIP",): (0, "zero-shot"),
    ("ZeroshotCLIP2",): (0, "zero-shot (ensemble)"),
    ("LinearProbe",): (9 * (E + 1), "LP-CLIP"),
    ("ProtoNet",): (0, "ProtoNet"),
    ("TipAdapter",): (0, "Tip-Adapter"),
    ("TipAdapter", "TIP.FINETUNE"): (9 * COUNTS["train_x"] * E, "Tip-Adapter-F"),
    ("CLIPAdapter",): (3 * 2 * E * E // 4, "CLIP-Adapter"),
    ("TaskRes",): (9 * E, "TaskRes"),
    ("TCP",): (3 * (M * D + (E + 1) * E // 4 + (E // 4 + 1) * M * D), "TCP"),
    ("CLIPLoRA",): (3 * (2 + 3) * 3 * 2 * 2 * D, "CLIP-LoRA"),
    ("MMA",): (3 * 2 * (4 * D * 8 + 2 * (8 + D) + 8 * 8 + 8), "MMA"),
    ("TwoStage",): (3 * (5 + 8) * 2 * D + 9 * E, "2SFS"),
    ("DePT",): (3 * (M * D + 4 * E) + 9 * (E + 1), "CoOp-CA+DePT"),
    ("LPPlusPlus",): (9 * (E + 2), "LP++"),
    ("VPT",): (3 * 3 * 8 * D, "VPT"),
    ("IVLP",): (3 * (2 + 3) * 2 * D, "IVLP"),
    ("PromptSRC",): (3 * (2 + 3) * 4 * D, "PromptSRC"),
    ("MaPLe",): (3 * 2 * (M * D + D * D + D), "MaPLe"),
}
# A head that belongs to classes is left out where a checkpoint meets others.
WITHOUT_HEAD = ("DePT", "TwoStage")
SOFTCPT_VARIANTS = {
    "NATA": (),
    "NATS": ("TASK_CSC",),
    "CATA": ("CSC",),
    "CATS": ("CSC", "TASK_CSC"),
    "CSTA": ("CSC", "CLASS_CSC"),
    "CSTS": ("CSC", "CLASS_CSC", "TASK_CSC"),
}
VARIANTS = list(dict.fromkeys([*((name,) for name in METHODS), *FORMS]))


def options(*switches):
    """KEY VALUE words: the small contexts of all methods, and the switches on."""
    pairs = {KeyOfSomeMethods(f"TRAINER.{key}"): v for key, v in SMALL_CONTEXTS.items()}
    pairs |= {f"TRAINER.{key}": "True" for key in switches}
    return [word for pair in pairs.items() for word in pair]


def preset(method):
    """The method's first YAML on the embedded tiny CLIP, found by the command in its comment."""
    files = sorted(Path(train.CONFIGS, "trainers").glob("*/tiny*.yaml"))
    found = [file for file in files if f"--trainer {method} " in file.read_text()]
    assert found, (
        f"{method} has no preset on the tiny CLIP: a file configs/trainers/*/tiny*.yaml must hold "
        f"its command in a comment, `# python train.py --trainer {method} --config-file ...`"
    )
    return found[0]


def optimizer(method):
    """KEY VALUE words: the optimizer of the method's preset."""
    name = read_yaml(preset(method)).get("OPTIM", {}).get("NAME")
    return ("OPTIM.NAME", name) if name else ()


def learned(trainer):
    """The learned tensors of all tasks' trainers, by name."""
    return {
        f"{i}.{name}": p
        for i, part in enumerate(trainer.task_trainers)
        for name, p in part.model.prompter.named_parameters()
        if p.requires_grad
    }


@torch.no_grad()
def training_loss(trainer):
    """The loss over all training images at once."""
    total = 0.0
    for part in trainer.task_trainers:
        items = part.dm.dataset.train_x
        batch = next(iter(build_data_loader(part.cfg, "SequentialSampler", items, len(items))))
        total += part.compute_loss(part.forward(part.image_features(batch)), batch)["loss"].item()
    return total


def guessing(trainer):
    """The training loss if all classes of a task are given the same chance."""
    spaces = [part.dm.space for part in trainer.task_trainers]
    images = [[size * COUNTS["train_x"] for size in space.sizes] for space in spaces]
    return sum(
        sum(n * math.log(size) for n, size in zip(counts, space.sizes, strict=True)) / sum(counts)
        for counts, space in zip(images, spaces, strict=True)
    )
