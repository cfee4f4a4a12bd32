"""A toy suite of coloured images, and ways to run train.py in this process."""

from __future__ import annotations

import os
import random
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from clip.text import TextGraphs
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.data.task_subsets import choose_tasks
from dassl.data.tasks import Task, TaskSpace
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed
from tests.emulated_graphs import Emulated

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # benchmarks/gpu_check.sh tests what a GPU does

TASKS = (
    Task("kind_of colour", ("red", "grass_green", "deep blue"), ("a {} picture.",)),
    Task("light or dark", ("light", "dark_tone"), metric="mean_acc"),
    Task("stripes", ("flat", "upright_stripes", "level stripes", "checks")),
)
COUNTS = {"train_x": 4, "val": 2, "test": 3}  # images per class
SMALL = (  # options of a run that takes a moment
    *("DATALOADER.NUM_WORKERS", "0"),
    *("DATALOADER.TRAIN_X.BATCH_SIZE", "8"),
    *("INPUT.TRANSFORMS", "('normalize',)"),
    *("OPTIM.MAX_EPOCH", "2"),
    *("TRAIN.RESUME_SECONDS", "0"),  # a state after every epoch, however short
)


def draw(task: int, label: int, rng: random.Random) -> Image.Image:
    """A noisy image of 32 x 32 pixels that shows its class."""
    image = Image.new("RGB", (32, 32))
    for x in range(32):
        for y in range(32):
            if task == 0:
                pixel = [200 if channel == label else 40 for channel in range(3)]
            elif task == 1:
                pixel = [200 - 150 * label] * 3
            else:
                bright = (0, x // 4 % 2, y // 4 % 2, (x // 4 + y // 4) % 2)[label]
                pixel = [60 + 120 * bright] * 3
            image.putpixel((x, y), tuple(p + rng.randrange(40) for p in pixel))
    return image


torch.set_num_threads(1)  # everything here is small


@pytest.fixture(scope="session", autouse=True)
def unsynced():
    """Files are not forced to the disk, which takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory):
    """The images of the toy suite, ``<task>_<label>_<number>.png``."""
    folder, rng = tmp_path_factory.mktemp("toy"), random.Random(0)
    for t, task in enumerate(TASKS):
        for label in range(len(task.classnames)):
            for i in range(sum(COUNTS.values())):
                draw(t, label, rng).save(folder / f"{t}_{label}_{i}.png")
    return folder


def toy_class(name: str, folder, groups=("", "", "")) -> type[DatasetBase]:
    """A dataset class over the images in ``folder``."""

    def init(self, cfg):
        ids = choose_tasks(cfg.DATASET.SUBSAMPLE_TASKS, len(TASKS))
        parts = {part: [] for part in COUNTS}
        for new, t in enumerate(ids):
            for label, classname in enumerate(TASKS[t].classnames):
                numbers = iter(range(sum(COUNTS.values())))
                for part, count in COUNTS.items():
                    for _ in range(count):
                        path = folder / f"{t}_{label}_{next(numbers)}.png"
                        parts[part].append(Datum(str(path), label, 0, classname, new))
        tasks = [
            Task(TASKS[t].name, TASKS[t].classnames, TASKS[t].templates, TASKS[t].metric, groups[t])
            for t in ids
        ]
        DatasetBase.__init__(self, **parts, space=TaskSpace(tuple(tasks)), split="toy")

    return type(name, (DatasetBase,), {"__init__": init, "__doc__": "Coloured images."})


@pytest.fixture(scope="module")
def toy(toy_folder):
    """Registers the datasets Toy and ToyGroups (the last task in a group of its own)."""
    classes = [
        toy_class("Toy", toy_folder),
        toy_class("ToyGroups", toy_folder, ("looks", "looks", "patterns")),
    ]
    for cls in classes:
        DATASET_REGISTRY.register(force=True)(cls)
    yield toy_folder
    for cls in classes:
        DATASET_REGISTRY._classes.pop(cls.__name__)


@pytest.fixture
def register_trainer():
    """Registers a trainer for one test."""
    added = []

    def register(cls):
        TRAINER_REGISTRY.register()(cls)
        added.append(cls.__name__)
        return cls

    yield register
    for name in added:
        TRAINER_REGISTRY._classes.pop(name)


@lru_cache
def backbone_of(trainer):
    """The untrained form of the backbone in a method's preset for the tiny CLIPs."""
    files = Path(train.CONFIGS, "trainers").glob("*/tiny*.yaml")
    texts = [text for file in files if f"--trainer {trainer} " in (text := file.read_text())]
    learns_in_vit = bool(texts) and all("tiny_vit.yaml" in text for text in texts)
    return "tiny-vit/random" if learns_in_vit else "tiny/random"


# of a text tower of 2 blocks and, in tiny-vit, an image tower of 3
DEPTHS = {"PROMPT_DEPTH": 2, "PROMPT_DEPTH_TEXT": 2, "PROMPT_DEPTH_VISION": 3}


def depths_of(trainer):
    """KEY VALUE words: prompts as deep as the towers of the tiny backbones."""
    cls = TRAINER_REGISTRY.get(trainer)
    keys = {f"TRAINER.{cls.KEY}.{key}": value for key, value in DEPTHS.items()}
    found = {k: v for k, v in keys.items() if k.rpartition(".")[2] in cls.DEFAULTS}
    return [word for pair in found.items() for word in pair]


class KeyOfSomeMethods(str):
    """A configuration key that is left out for methods without it; train.py would refuse it."""


def own_options(trainer, words):
    """The KEY VALUE words without each KeyOfSomeMethods that the method does not read.

    So a test may give one list to all methods; any other key of another method is refused.
    """
    cls, cfg = TRAINER_REGISTRY.get(trainer), get_cfg_default()
    cls.add_config(cfg)
    if not cls.KEY or len(words) % 2:
        return words
    pairs = list(zip(words[::2], words[1::2], strict=True))
    own = [pair for pair in pairs if pair[0].startswith(f"TRAINER.{cls.KEY}.")]
    cfg.merge_from_list([str(word) for pair in own for word in pair])
    read = ("NAME", *cls.config_keys(cfg))
    kept = [
        p for p in pairs if not isinstance(p[0], KeyOfSomeMethods) or p[0].split(".")[1] in read
    ]
    return [word for pair in kept for word in pair]


def toy_args(trainer, *opts, dataset="Toy", output="unused", flags=()):
    """Parsed arguments of a small run on a toy dataset."""
    return train.parse_args(
        [
            *("--trainer", trainer, "--backbone", backbone_of(trainer)),
            *("--output-dir", str(output)),
            *flags,
            *(() if "--seed" in flags else ("--seed", "1")),
            *("--quiet", "DATASET.NAME", dataset),
            *SMALL,
            *map(str, [*depths_of(trainer), *own_options(trainer, opts)]),
        ]
    )


@pytest.fixture
def run(toy, tmp_path):
    """``run(trainer, KEY, VALUE, ...)`` trains into ``output`` and returns results.json."""

    def go(trainer, *opts, output=None, **how):
        return train.main(toy_args(trainer, *opts, output=output or tmp_path / "run", **how))

    return go


@pytest.fixture
def emulated_graphs(monkeypatch):
    """Without a GPU, CUDA graphs of text passes are emulated on the CPU."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(TextGraphs, "make", Emulated)


@pytest.fixture
def build(toy, tmp_path):
    """``build(trainer, KEY, VALUE, ...)`` gives the trainer, untrained."""

    def go(trainer, *opts, **how):
        how = {"output": tmp_path / "run", **how}
        cfg = train.setup_cfg(toy_args(trainer, "VERBOSE", "False", *opts, **how))
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)

    return go


@pytest.fixture
def cli(toy, tmp_path, capsys):
    """``cli(*words, trainer=, output=)``: exit code of ``train.py``, stdout, stderr."""

    def go(*words, trainer="CoOp", output=None, backbone="tiny/random", dataset="Toy"):
        flags = ["--trainer", trainer, "--backbone", backbone, "--seed", "1"]
        flags += ["--output-dir", str(output or tmp_path / "run")]
        own = ["DATASET.NAME", dataset, "DATASET.SUBSAMPLE_TASKS", "task0", *SMALL]
        capsys.readouterr()
        code = train.command([*flags, *own, *map(str, words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return go
