"""A training step of single methods: ViT-B/16, 47 classes, batch 4; LP++: a whole fit.

    python -m benchmarks methods

The naive step encodes every prompt at its full length and every image in every step. Where the
frozen image tower's features can be stored, a row has them stored ("warm"): for PromptSRC those of
its teacher. CLIP-LoRA runs without dropout, so that both sides compute the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from benchmarks import _plain_adapted as adapted
from benchmarks import _plain_methods as plain
from benchmarks._plain import plain_clip
from benchmarks._sides import NAIVE, compare, row
from benchmarks.gpu import STEP, Size, make_batch, make_space, make_trainer, measure, precision_key
from clip import backbones
from prompting.stored_features import Storable
from trainers import lp_plus_plus

PLAIN = {  # on a GPU in this order, while there is time (benchmarks/_speed.py)
    "CLIPLoRA": adapted.PlainLoRA,
    "TwoStage": adapted.PlainNorms,
    "MMA": adapted.PlainMMA,
    "VPT": plain.PlainDeep,
    "IVLP": plain.PlainDeep,
    "MaPLe": plain.PlainDeep,
    "PromptSRC": plain.PlainDeep,
    "TCP": plain.PlainTCP,
    "DePT": plain.PlainDePT,
    "TaskRes": plain.PlainTaskRes,
}
METHODS = ("LPPlusPlus", *PLAIN)
WARM = {"PromptSRC": "teacher stored", "TCP": "", "DePT": "", "TaskRes": ""}
OPTIONS = {"CLIPLoRA": {"DROPOUT": 0}, "LPPlusPlus": {"SEARCH": False}}
SMALL_OPTIONS = {  # the blocks of tiny-vit's towers
    "VPT": {"PROMPT_DEPTH_VISION": 3},
    "IVLP": {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2},
    "MaPLe": {"PROMPT_DEPTH": 2},
    "PromptSRC": {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2},
    "TCP": {"LAYER": 1},
    "MMA": {"START": 1, "END": 2},
}
SHOTS, ITERATIONS = 16, 300  # of LP++
FULL = {"classes": 47, "batch": 4, "backbone": "ViT-B-16/random"}
SMALL = {"classes": 5, "batch": 3, "backbone": "tiny-vit/random"}
WARM_UP, TIMES = 3, 20  # steps on a GPU; a text pass that comes a third time is a CUDA graph then


def run(small: bool = False) -> list[dict]:
    """All rows of a CPU."""
    rows = []
    for method in chosen(small):
        case = {"method": method, **(SMALL if small else FULL)}
        rows += compare("benchmarks.methods", {method: case}, sides_of(method))
    return rows


def chosen(small: bool) -> tuple[str, ...]:
    """The methods that are measured."""
    return ("PromptSRC", "LPPlusPlus") if small else METHODS


def sides_of(method: str) -> dict[str, str]:
    """What is compared with the naive side, and what a row says of it."""
    if method == "LPPlusPlus":
        return {"warm": f"{ITERATIONS} iterations on stored features"}
    warm = {"warm": WARM[method] or "features stored"} if method in WARM else {}
    return {"images": "", **warm}


def compare_on_gpu(method: str, small: bool = False) -> list[dict]:
    """Rows of a method in fp32 and in mixed precision, timed in this process, on a GPU if any."""
    size = SMALL if small else FULL
    rows = []
    for precision in ("fp32", "amp"):
        case = {**size, "method": method, "gpu": torch.cuda.is_available(), "precision": precision}
        found = {}
        for side in (NAIVE, *sides_of(method)):
            step = prepare(side, **case)
            for _ in range(WARM_UP):
                step()
            times = 1 if method == "LPPlusPlus" else TIMES
            found[side] = measure(step, times, torch.device("cuda" if case["gpu"] else "cpu"))
            del step
        for side, says in sides_of(method).items():
            peak = f"peak {found[NAIVE][1] / 2**30:.1f} and {found[side][1] / 2**30:.1f} GiB"
            what = ", ".join(filter(None, (method, says, precision)))
            rows.append(row(what, found[NAIVE][0], found[side][0], peak))
    return rows


def prepare(
    side: str,
    method: str,
    classes: int,
    batch: int,
    backbone: str,
    gpu: bool = False,
    precision: str = "fp32",
) -> Callable[[], list[torch.Tensor]]:
    """A training step, or a fit of LP++; it returns the learned tensors."""
    size = Size((backbone,), (classes,), batch, steps=1)
    options = OPTIONS.get(method, {})
    options = options | (SMALL_OPTIONS.get(method, {}) if backbone.startswith("tiny") else {})
    words = [w for k, v in options.items() for w in (f"TRAINER.{method.upper()}.{k}", str(v))]
    words += ["USE_CUDA", str(gpu), precision_key(method), precision]
    if side == "checkpoint":
        words += ["COMPUTE.IMAGE_CHECKPOINT", "True"]
    trainer = make_trainer(method, backbone, size, make_space(size.classes), *words)
    trainer.epoch = 0
    if method == "LPPlusPlus":
        return _fit(trainer, side, classes)
    data = {key: value.to(trainer.device) for key, value in make_batch(trainer, size).items()}
    if side == NAIVE:
        naive = _plain(trainer, PLAIN[method])
        step = functools.partial(naive, data["img"], data["label"])
        learned = list(naive.learned.values())
        del trainer
        if not gpu:  # else its memory would count as the naive side's
            backbones._cached.cache_clear()
    else:
        learned = list(_learned(trainer).values())
        if side == "warm":
            features = trainer.clip.encode_image(data["img"])
            if trainer.stored_features(trainer.cfg.TRAINER[trainer.KEY]) == Storable.TEACHER:
                data["teacher"] = features
            else:
                del data["img"]
                data["feat"] = features
        data["label"], data["task"] = data["label"].cpu(), data["task"].cpu()  # as a loader's
        step = functools.partial(trainer.train_step, data, STEP)

    def timed():
        step()
        return learned

    return timed


def _learned(trainer) -> dict[str, torch.Tensor]:
    """Learned tensors by name, without the classifier of 2SFS's second stage."""
    named = trainer.model.prompter.named_parameters()
    return {name: p for name, p in named if name != "classifier"}


def _plain(trainer, kind: type[plain.PlainMethod]) -> plain.PlainMethod:
    """The naive step of the same weights, names and learned numbers."""
    clip_model, prompter = trainer.clip, trainer.model.prompter
    state = {key: value.clone() for key, value in clip_model.state_dict().items()}
    contexts = getattr(prompter, "contexts", None)
    fixed = {
        "text": getattr(prompter, "features", None),
        "words": getattr(contexts, "words", None),
        "class": getattr(prompter, "class_features", None),
        "base": getattr(prompter, "base", None),
        "anchors": trainer.templates.features if trainer.uses_templates else None,
    }
    return kind(
        plain_clip(clip_model.config, state).to(trainer.device),
        trainer.dm.space.classnames,
        _learned(trainer),
        {name: tensor for name, tensor in fixed.items() if tensor is not None},
        lr=trainer.cfg.OPTIM.LR,
        amp=trainer.precision == "amp",
    )


def _fit(trainer, side: str, classes: int) -> Callable[[], list[torch.Tensor]]:
    """LP++ from its start to its last iterate, on random image features."""
    probe, generator = trainer.model.prompter, torch.Generator().manual_seed(0)
    label = torch.arange(classes).repeat(SHOTS)
    features = torch.randn(len(label), probe.features.shape[1], generator=generator)
    label, features = label.to(trainer.device), features.to(trainer.device)
    state = {name: value.clone() for name, value in probe.state_dict().items()}
    if side == NAIVE:
        arguments = (features, label, probe.features, state, ITERATIONS)
        return functools.partial(plain.plain_lp_plus_plus, *arguments)

    @torch.no_grad()
    def fit() -> list[torch.Tensor]:
        probe.load_state_dict(state)
        x = torch.nn.functional.normalize(features, dim=-1)
        lp_plus_plus.start(probe, x, label, "sum")
        iterates = lp_plus_plus.iterate(probe, x, label, add_up=False)
        for _ in range(ITERATIONS):
            next(iterates)
        return [probe.weight, probe.bias, probe.alpha]

    return fit
