"""SoftCPT at General-10's size on one GPU: the naive step against ours, images and warm features.

    python -m benchmarks gpu            # RN50 and ViT-B/16, 1,191 classes in 10 tasks, batch 32
    python -m benchmarks gpu --small    # in miniature, also what a machine without a GPU does

Weights are random and images synthetic: neither changes the time of a step. The naive side,
``benchmarks/_plain.py``, is open_clip's model in a plain loop.
"""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

import train
from benchmarks._plain import PlainConditionalStep, PlainStep, plain_clip
from benchmarks._sides import row
from clip._graphs import AFTER
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.tasks import Task, TaskSpace
from dassl.engine import TRAINER_REGISTRY, Step
from dassl.utils import set_random_seed
from dassl.utils.lockstep import Lockstep, Strand

# General-10: Caltech101, Pets, Cars, Flowers, Food, Aircraft, SUN397, DTD, EuroSAT, UCF101.
CLASSES = (100, 37, 196, 102, 101, 100, 397, 47, 10, 101)
SHOTS, EPOCHS, BATCH = 16, 50, 32
STEPS = SHOTS * sum(CLASSES) // BATCH * EPOCHS  # 29,750
TEST_IMAGES = 83_696  # in CoOp's splits
WORDS = (
    "river field maple golden spotted highway station sedan coupe yellow striped garden temple "
    "kitchen forest market harbour orchid terrier spaniel salad dumpling glider annual crop "
    "woven knitted office tower bridge stadium playing swinging throwing breast stroke"
)
VARIANTS = {  # trainer and its switches
    "CoOp-MT": ("MTCoOpHard", ()),
    "NATA": ("MTCoOp", ()),
    "NATS": ("MTCoOp", ("TASK_CSC",)),
    "CATA": ("MTCoOp", ("CSC",)),
    "CSTA": ("MTCoOp", ("CSC", "CLASS_CSC")),
    "CSTS": ("MTCoOp", ("CSC", "CLASS_CSC", "TASK_CSC")),
}
ONE_TASK = {"CoOp": ("CoOp", ()), "CoCoOp": ("CoCoOp", ())}  # train on one task at a time
NAMES = {"tasks.ctx": "U", "classes.ctx": "V", "meta.proj": "W", "prompts.ctx": "ctx"}
NAMES |= {"meta_net.linear1.weight": "W1", "meta_net.linear1.bias": "b1"}
NAMES |= {"meta_net.linear2.weight": "W2", "meta_net.linear2.bias": "b2"}


ON_CPU = ("USE_CUDA", "False")  # for the suites that are about one


@dataclass(frozen=True)
class Size:
    """How large a benchmark is."""

    backbones: tuple[str, ...]
    classes: tuple[int, ...]
    batch: int
    steps: int
    variants: tuple[str, ...] = tuple(VARIANTS)


FULL = Size(("RN50/random", "ViT-B-16/random"), CLASSES, BATCH, 20)
SMALL = Size(("tiny/random",), (8, 5, 11), 8, 3)


def make_space(classes: tuple[int, ...]) -> TaskSpace:
    """Tasks with made-up class names of one to four words, about as long as real ones."""
    rng, words, tasks = random.Random(0), WORDS.split(), []
    for t, count in enumerate(classes):
        names: dict[str, None] = {}
        while len(names) < count:
            names[" ".join(rng.sample(words, rng.choice((1, 2, 2, 3, 4))))] = None
        tasks.append(Task(f"a made-up kind {words[t]}", tuple(names)))
    return TaskSpace(tuple(tasks))


def make_trainer(variant: str, backbone: str, size: Size, space: TaskSpace, *opts: str):
    """The trainer of a variant, or of a registered method, on images that are never read.

    ``opts`` are KEY VALUE pairs.
    """
    name, switches = (VARIANTS | ONE_TASK).get(variant, (variant, ()))
    key = TRAINER_REGISTRY.get(name).KEY
    words = [f"TRAINER.{key}.{switch}" for switch in switches]
    words = [word for switch in words for word in (switch, "True")]
    args = ["--trainer", name, "--backbone", backbone, "--seed", "1", *words]
    args += ["DATASET.NAME", "Digits7", "VERBOSE", "False", "DATALOADER.NUM_WORKERS", "0"]
    args += ["DATALOADER.TRAIN_X.BATCH_SIZE", str(size.batch), *opts]
    cfg = train.setup_cfg(train.parse_args(args))
    items = [
        Datum(f"{t}-{label}.png", label, 0, classname, t)
        for t, task in enumerate(space.tasks)
        for label, classname in enumerate(task.classnames)
    ]
    set_random_seed(1)
    dataset = DatasetBase(train_x=items, test=items, space=space)
    trainer = TRAINER_REGISTRY.get(name)(cfg, dataset=dataset)
    trainer.set_model_mode("train")
    return trainer


def precision_key(trainer: str, *words: str) -> str:
    """The key of a method's precision; DePT's is that of the method that the KEY VALUE words name.

    Args:
        trainer: its name.
    """
    cfg = train.setup_cfg(train.parse_args(["--trainer", trainer, *words]))
    return f"TRAINER.{TRAINER_REGISTRY.get(trainer).config_keys(cfg)[-1]}.PREC"


STEP = Step(0, 0, 10**9)  # no step is the last of an epoch


def make_plain(trainer) -> PlainStep:
    """The naive step of the same weights, names and learned numbers."""
    clip_model, space = trainer.clip, trainer.dm.space
    state = {key: value.float() for key, value in clip_model.state_dict().items()}
    model = plain_clip(clip_model.config, state, half=trainer.precision == "fp16")
    learned = trainer.model.prompter.state_dict()
    step = PlainConditionalStep if "meta_net.linear1.weight" in learned else PlainStep
    return step(
        model.to(trainer.device),
        [task.name for task in space.tasks],
        space.classnames,
        space.owner.to(trainer.device),
        {NAMES[key]: value for key, value in learned.items()},
        lr=trainer.cfg.OPTIM.LR,
    )


def make_batch(trainer, size: Size) -> dict[str, torch.Tensor]:
    """Images of every task in turn."""
    generator = torch.Generator().manual_seed(0)
    task = torch.arange(size.batch) % len(size.classes)
    label = torch.tensor([b % size.classes[t] for b, t in enumerate(task.tolist())])
    images = torch.randn(size.batch, 3, *trainer.clip.image_size, generator=generator)
    return {"img": images, "label": label, "task": task}


def make_warm_batch(trainer, size: Size) -> dict[str, torch.Tensor]:
    """The same batch with image features in place of the images, as from the feature store."""
    batch = make_batch(trainer, size)
    images = batch.pop("img").to(trainer.device)
    return {**batch, "feat": trainer.image_features({**batch, "img": images})["global"]}


def measure(step: Callable[[], object], times: int, device: torch.device) -> tuple[float, int]:
    """Seconds of a step after two to warm up, and the peak of the GPU's memory in bytes."""
    gpu = device.type == "cuda"
    for _ in range(2):
        step()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(times):
        step()
    if gpu:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() if gpu else 0
    return (time.perf_counter() - start) / times, peak


def measure_naive(trainer, batch: dict, times: int) -> tuple[float, int]:
    """As :func:`measure`, of the naive step; no number and 0 if it does not fit a GPU."""
    plain = make_plain(trainer)
    arguments = (batch["img"], batch["label"], batch["task"])
    try:
        return measure(lambda: plain(*arguments), times, trainer.device)
    except torch.OutOfMemoryError:
        return math.nan, 0


def measure_all(
    backbone: str, variant: str, size: Size, space: TaskSpace, *opts: str
) -> dict[str, tuple[float, int]]:
    """Seconds and peak memory of "encode" (the images alone), "images" (a step with images
    encoded), "warm" (a step with warm features), "score" (an evaluation), "graphed" (a step with
    warm features and CUDA graphs) and "naive"."""
    trainer = make_trainer(variant, backbone, size, space, *opts, "COMPUTE.GRAPHS", "False")
    device, batch = trainer.device, make_batch(trainer, size)
    moved = {key: value.to(device) for key, value in batch.items()}
    feat = trainer.image_features(moved)["global"]
    stored = {**batch, "feat": feat}
    stored.pop("img")
    found = {
        "encode": measure(lambda: trainer.image_features(moved), size.steps, device),
        "images": measure(lambda: trainer.train_step(batch, STEP), size.steps, device),
        "warm": measure(lambda: trainer.train_step(stored, STEP), size.steps, device),
    }
    with torch.no_grad():
        infer = trainer.build_inference("test")
        found["score"] = measure(lambda: infer({"global": feat}), size.steps, device)
    found["naive"] = measure_naive(trainer, moved, size.steps)
    trainer = make_trainer(variant, backbone, size, space, *opts, "COMPUTE.GRAPHS", "True")
    for _ in range(2):  # and two more before the clock starts: then graphs are captured
        trainer.train_step(stored, STEP)
    found["graphed"] = measure(lambda: trainer.train_step(stored, STEP), size.steps, device)
    return found


def measure_together(
    backbone: str, variant: str, size: Size, space: TaskSpace, runs: int
) -> tuple[float, int]:
    """Seconds of a step of one of several runs that share their text passes, warm features and
    graphs if there are any; and the peak of the GPU's memory in bytes."""
    with Lockstep() as lockstep:
        for number in range(runs):
            lockstep.start(number, functools.partial(_own_steps, backbone, variant, size, space))
        ended: list[Strand] = []
        while lockstep.strands:
            ended += lockstep.round()
    for strand in ended:
        if strand.error is not None:
            raise strand.error
    starts, ends, peaks = zip(*(strand.result for strand in ended), strict=True)
    return (max(ends) - min(starts)) / size.steps / runs, max(peaks)


def _own_steps(
    backbone: str, variant: str, size: Size, space: TaskSpace
) -> tuple[float, float, int]:
    """When the steps of a run begin and end, and the peak memory by then."""
    trainer = make_trainer(variant, backbone, size, space)
    batch = make_warm_batch(trainer, size)
    times = []
    for steps in (AFTER + 1, size.steps):
        for _ in range(steps):
            trainer.train_step(batch, STEP)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
    peak = torch.cuda.max_memory_allocated() if trainer.device.type == "cuda" else 0
    return times[0], times[1], peak


def compare(backbone: str, variant: str, size: Size, space: TaskSpace) -> list[dict]:
    """A step with images encoded, a step with warm features, and an evaluation."""
    found = measure_all(backbone, variant, size, space)
    seconds = {name: value for name, (value, _) in found.items()}
    peak = {name: f"{memory / 2**30:.1f}" for name, (_, memory) in found.items()}
    tests = TEST_IMAGES / size.batch * seconds["score"]
    encode = seconds["encode"] / size.batch
    images = EPOCHS * SHOTS * sum(CLASSES) + TEST_IMAGES
    minutes = {
        "images": (STEPS * seconds["images"] + tests + TEST_IMAGES * encode) / 60,
        "warm": (STEPS * seconds["warm"] + tests) / 60,
        "graphed": (STEPS * seconds["graphed"] + tests) / 60,
    }
    where = f"{backbone.split('/')[0]} {variant}"
    return [
        row(
            f"{where}: step, images encoded",
            seconds["naive"],
            seconds["images"],
            f"peak {peak['naive']} and {peak['images']} GiB; General-10 in "
            f"{minutes['images']:.1f} min, naive {STEPS * seconds['naive'] / 60:.0f} min and its "
            "evaluation",
        ),
        row(
            f"{where}: step, warm features",
            seconds["naive"],
            seconds["warm"],
            f"peak {peak['naive']} and {peak['warm']} GiB; General-10 in {minutes['warm']:.1f} "
            f"min, after {images * encode / 60:.1f} min of encoding once",
        ),
        row(
            f"{where}: step, warm features, CUDA graphs",
            seconds["naive"],
            seconds["graphed"],
            f"peak {peak['naive']} and {peak['graphed']} GiB; General-10 in "
            f"{minutes['graphed']:.1f} min, after {images * encode / 60:.1f} min of encoding once",
        ),
    ]


def run(small: bool = False) -> list[dict]:
    """All rows; in miniature if asked for, or if there is no GPU."""
    size = SMALL if small or not torch.cuda.is_available() else FULL
    space = make_space(size.classes)
    rows = []
    for backbone in size.backbones:
        for variant in size.variants:
            rows += compare(backbone, variant, size, space)
    if size is SMALL:
        for line in rows:
            line["notes"] = "in miniature: the times say nothing of a GPU"
    return rows
