"""General-10's real counts as a simulation: how long everything but the towers takes.

    python -m benchmarks.full_data [--small]

A temporary folder gets an invented file of a few bytes for each of the 236,625 images (1,191
classes in ten tasks), a manifest that lists them, and random features. Nothing is decoded and no
tower runs. Printed are CPU and wall-clock seconds of each stage of a run that grows with the number
of images, and the largest memory of the process so far.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import train
from benchmarks import gpu
from benchmarks._progress import table
from clip.features import DigestCache, FeatureStore
from dassl.data import DataManager, build_dataset
from dassl.data.identity import identify
from dassl.evaluation import build_evaluator
from datasets.general10 import General10
from results.read import read_run
from results.rendering import render
from results.report import Choices, Report

CLASSES = (100, 47, 10, 100, 101, 102, 37, 196, 397, 101)  # of General10.members
SHOTS, SEEDS, METHODS = (1, 2, 4, 8, 16), (1, 2, 3), 10
WIDTH, BATCH, SHARD = 1024, 100, 4096  # of a feature, a test batch, a file of features
HEADER = ("", "CPU seconds", "seconds", "peak memory, GB")


def counts(small: bool) -> list[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """Name, invented class names and numbers of train, val and test images of each task."""
    found = []
    for member, classes in zip(General10.members, CLASSES, strict=True):
        space = gpu.make_space((classes,))
        sizes = tuple(-(-size // 100) if small else size for size in member.sizes)
        found.append((member.task_name or member.__name__, space.classnames, sizes))
    return found


def write_images(folder: Path, small: bool) -> int:
    """Write the files and ``manifest.csv``; returns the number of images."""
    rows = []
    for task, names, sizes in counts(small):
        for label in range(len(names)):
            (folder / task / f"{label}").mkdir(parents=True, exist_ok=True)
        for part, size in zip(("train", "val", "test"), sizes, strict=True):
            for i in range(size):
                path = f"{task}/{i % len(names)}/{part}{i}.jpg"
                (folder / path).write_text(path)
                rows.append((path, names[i % len(names)], task, part))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "class", "task", "split"), *rows])
    return len(rows)


def stages(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is timed, in order; a stage may use what an earlier one made."""
    args = ["--trainer", "MTCoOp", "--backbone", "tiny/random", "--seed", "1", "USE_CUDA", "False"]
    args += ["DATASET.NAME", "Manifest", "DATASET.ROOT", str(folder), "DATASET.NUM_SHOTS", "16"]
    args += ["DATALOADER.NUM_WORKERS", "0", "VERBOSE", "False", "INPUT.SIZE", "(224, 224)"]
    args += ["INPUT.INTERPOLATION", "bicubic"]
    cfg = train.setup_cfg(train.parse_args(args))
    yield "dataset: the table read, the first draw of 16 shots", lambda: build_dataset(cfg)
    yield "the same again, the draw recorded", lambda: build_dataset(cfg)
    dataset = build_dataset(cfg)
    yield "identity of the data (hashes of names, paths, labels)", lambda: identify(dataset)
    manager = DataManager(cfg, dataset=dataset)
    yield "an epoch of training batches, without images", lambda: list(_batches(manager))
    items = [*dataset.train_x, *dataset.test]
    paths = [item.impath for item in items]
    digests = DigestCache(folder / "features")
    yield f"digests of {len(paths):,} images, every file read", lambda: digests.of(paths)
    yield "the same in the next run", lambda: DigestCache(folder / "features").of(paths)
    yield "the same in the next epoch", lambda: digests.of(paths)
    key = {"weights": "random"}
    names = [f"{i:064x}" for i in range(len(paths))]
    yield "features (1024, fp16) stored", lambda: _store(folder, key, names)
    yield "the store opened and all features read", lambda: _read(folder, key, names)
    yield "evaluation of random logits", lambda: _evaluate(cfg, manager)
    _write_records(folder / "runs")
    runs = METHODS * len(SHOTS) * len(SEEDS)
    yield f"table of {runs} runs", lambda: _report(folder / "runs")


def _batches(manager: DataManager) -> Iterator[list[int]]:
    manager.train_loader_x.set_epoch(1)
    yield from manager.train_loader_x.batches


def _store(folder: Path, key: dict, names: list[str]) -> None:
    store, generator = FeatureStore(folder / "features", key), torch.Generator().manual_seed(0)
    for start in range(0, len(names), SHARD):
        part = names[start : start + SHARD]
        store.add(part, torch.randn(len(part), WIDTH, generator=generator).half())


def _read(folder: Path, key: dict, names: list[str]) -> torch.Tensor:
    store = FeatureStore(folder / "features", key)
    return store.gather(store.indices(names))


def _evaluate(cfg, manager: DataManager) -> None:
    evaluator = build_evaluator(cfg, space=manager.space)
    generator = torch.Generator().manual_seed(0)
    test = manager.dataset.test
    for start in range(0, len(test), BATCH):
        part = test[start : start + BATCH]
        logits = torch.randn(len(part), manager.space.num_classes, generator=generator)
        label, task = ([getattr(item, name) for item in part] for name in ("label", "task"))
        evaluator.process(logits, torch.tensor(label), torch.tensor(task))
    evaluator.evaluate()


def _write_records(folder: Path) -> None:
    """A results.json per method, shots and seed, with ten tasks."""
    for m in range(METHODS):
        for shots in SHOTS:
            for seed in SEEDS:
                values = [60.0 + m + shots / 2 + seed / 4 + t for t in range(10)]
                tasks = [
                    {"id": t, "name": f"task {t}", "group": "", "metric": "overall_acc", "value": v}
                    for t, v in enumerate(values)
                ]
                protocol = {
                    "name": "few_shot",
                    "suite": "General10",
                    "method": f"method {m}",
                    "trainer": "CoOp",
                    "shots": shots,
                    "seed": seed,
                    "options": {},
                }
                suite = {"metric": "mean over tasks", "value": sum(values) / 10, "groups": {}}
                content = {"schema": 1, "status": "complete", "protocol": protocol}
                path = folder / f"{m}" / f"shots{shots}" / f"seed{seed}" / "results.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps({**content, "tasks": tasks, "suite": suite}))


def _report(folder: Path) -> str:
    runs = [read_run(path.parent) for path in sorted(folder.rglob("results.json"))]
    return render(Report(runs, Choices()).parts(), "md")


def measure(small: bool) -> list[tuple[str, str, str, str]]:
    """A row per stage."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder, small)
        print(f"{images:,} images", flush=True)
        time.sleep(0 if small else 3)  # digests of files written just now are not recorded
        for what, work in stages(folder):
            wall, cpu = time.perf_counter(), time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                work()
            seconds = time.process_time() - cpu, time.perf_counter() - wall
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            rows.append((what, *(f"{value:.2f}" for value in (*seconds, peak))))
            print(" | ".join(rows[-1]), flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_data")
    parser.add_argument("--small", action="store_true", help="a hundredth of the images")
    print("\n" + table(HEADER, measure(parser.parse_args(arguments).small)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
