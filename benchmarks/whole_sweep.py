"""A whole sweep on Digits7, naive and ours: 5 shots x 3 seeds x the demo's 4 methods.

    python -m benchmarks whole_sweep

Ours is `sweep.py` with the demo's configuration, from no stored feature to the last record and
checkpoint. The naive side trains and tests the same runs in plain loops (``_plain.py``) and writes
nothing: images are encoded in every step, text in full in every step and for every test batch. The
order of the images, the schedule of the rate and the count of right answers are our side's.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from open_clip import tokenize

import sweep
import train
from benchmarks._plain import plain_clip
from benchmarks._sides import row
from benchmarks.gpu import ON_CPU, make_plain
from dassl.engine import build_trainer
from dassl.optim import build_lr_scheduler
from dassl.utils import set_random_seed
from results.read import read_run
from sweeps.plan import read_sweep

ROOT = Path(__file__).parent.parent
SHOTS, SEEDS, EPOCHS = [1, 2, 4, 8, 16], [1, 2, 3], 50
PLAIN = ["FEATURES.MODE", "off", "VERBOSE", "False"]


def run(small: bool = False) -> list[dict]:
    """A row of the default and one of runs side by side."""
    size = ([1], [1], 2) if small else (SHOTS, SEEDS, EPOCHS)
    runs = 1 + 3 * len(size[0]) * len(size[1])
    rows, expected, plain = [], None, 0.0
    for says, flags in {"": (), ", --together auto": ("--together", "auto")}.items():
        with tempfile.TemporaryDirectory() as folder:
            words = [*write_plan(Path(folder), *size), *flags]
            if expected is None:
                start = time.perf_counter()
                expected = naive(words)
                plain = time.perf_counter() - start
            start = time.perf_counter()
            found = ours(words)
            took = time.perf_counter() - start
        apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        notes = f"{len(found)} accuracies, apart by at most {apart:.2f} points"
        rows.append(row(f"sweep of {runs} runs on Digits7{says}", plain, took, notes))
    return rows


def write_plan(folder: Path, shots: list[int], seeds: list[int], epochs: int) -> list[str]:
    """Arguments of `sweep.py` for the demo's sweep at other shots, seeds and epochs."""
    content = yaml.safe_load((ROOT / "configs/sweeps/demo.yaml").read_text(encoding="utf-8"))
    plan = folder / "sweep.yaml"
    plan.write_text(yaml.safe_dump({**content, "shots": shots, "seeds": seeds}), encoding="utf-8")
    opts = ["MODEL.BACKBONE.NAME", "tiny/random", "OPTIM.MAX_EPOCH", str(epochs)]
    opts += ["FEATURES.DIR", str(folder / "features"), *ON_CPU]
    return [str(plan), "--output-dir", str(folder / "output"), *opts]


def ours(words: list[str]) -> list[float]:
    """Every run's accuracies, task by task."""
    args = sweep.parse_args(words)
    with contextlib.redirect_stdout(io.StringIO()):
        code = sweep.main(args)
    if code:
        raise RuntimeError("a run of the sweep failed")
    folders = [planned.folder for planned in _runs(words)]
    return [task["value"] for f in folders for task in read_run(f).tasks.values()]


def naive(words: list[str]) -> list[float]:
    """The same of plain loops; a method that trains each task by itself does so here."""
    found = []
    for planned in _runs(words):
        args = train.parse_args([*planned.argv, *PLAIN])
        with contextlib.redirect_stdout(io.StringIO()):
            cfg = train.setup_cfg(args)
            set_random_seed(cfg.SEED)
            trainer = build_trainer(cfg)  # the source of images, names and first numbers
            for part in trainer.task_trainers:
                found += plain_run(part)
    return found


def plain_run(trainer) -> list[float]:
    """Train and test in plain loops; the accuracy of each task."""
    if not trainer.sgd or not list(trainer.model.prompter.parameters()):
        model = plain_clip(trainer.clip.config, trainer.clip.state_dict())
        return plain_test(trainer, model, lambda: plain_zero_shot(model, trainer.dm.space))
    step = make_plain(trainer)
    schedule = build_lr_scheduler(step.optim, trainer.cfg.OPTIM)
    for epoch in range(trainer.cfg.OPTIM.MAX_EPOCH):
        trainer.train_loader_x.set_epoch(epoch)
        for batch in trainer.train_loader_x:
            step(batch["img"], batch["label"], batch["task"])
        schedule.step()
    return plain_test(trainer, step.model, step.text)


@torch.no_grad()
def plain_test(trainer, model, text) -> list[float]:
    """Text and images are encoded for every batch."""
    for batch in trainer.test_loader:
        x = F.normalize(model.encode_image(batch["img"]), dim=-1)
        logits = model.logit_scale.exp() * x @ text().T
        trainer.evaluator.process(logits, batch["label"], batch["task"])
    trainer.evaluator.evaluate()
    return [task["value"] for task in trainer.evaluator.tasks]


def plain_zero_shot(model, space) -> torch.Tensor:
    """Text features (C, e) of the tasks' templates."""
    parts = []
    for task in space.tasks:
        names = [name.replace("_", " ") for name in task.classnames]
        each = [
            F.normalize(model.encode_text(tokenize([t.format(n) for n in names])), dim=-1)
            for t in task.templates
        ]
        parts.append(F.normalize(sum(each), dim=-1))
    return torch.cat(parts)


def _runs(words: list[str]):
    args = sweep.parse_args(words)
    return read_sweep(args.sweep, args.opts, args.output_dir, ROOT / "configs").runs
