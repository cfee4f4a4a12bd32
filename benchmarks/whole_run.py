"""One training run at General-10's size by `train.py`, on invented images; its time by stage.

    python -m benchmarks.whole_run [--small] [--epochs 50] [--views 2] [FOLDER]

1,191 classes in ten tasks with 16 training images and one test image each, SoftCPT-NATA on RN50
with random weights in fp16, features stored. The images are noise, so accuracies mean nothing; the
time of a step is that of the real data. The stages of the run and the time of a step are printed
and written to FOLDER.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import train
from benchmarks import gpu
from benchmarks._progress import Report, say, table

SHOTS, SIDE = 16, 64  # pixels of an invented image


def write_images(folder: Path, classes: tuple[int, ...], shots: int) -> None:
    """Write JPEG files of noise and ``manifest.csv``."""
    rng, rows = np.random.default_rng(0), []
    space = gpu.make_space(classes)
    for task in space.tasks:
        place = folder / task.name.replace(" ", "-")
        place.mkdir()
        for label, name in enumerate(task.classnames):
            for i in range(shots + 1):
                path = place / f"{label}-{i}.jpg"
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path, quality=60)
                part = "train" if i < shots else "test"
                rows.append((str(path.relative_to(folder)), name, task.name, part))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "class", "task", "split"), *rows])


def run(folder: Path, epochs: int, views: int, small: bool) -> dict:
    """Write the images, train and test; numbers of the run."""
    classes, shots = (gpu.SMALL.classes, 2) if small else (gpu.CLASSES, SHOTS)
    data = folder / "data"
    data.mkdir()
    began = time.perf_counter()
    write_images(data, classes, shots)
    written = time.perf_counter()
    say(f"{sum(classes) * (shots + 1)} images written")
    backbone = "tiny/random" if small else "RN50/random"
    words = ["--trainer", "MTCoOp", "--backbone", backbone, "--seed", "1", "--quiet"]
    if not small:
        words += ["--config-file", "configs/trainers/MTCoOp/rn50_ep50.yaml"]
    words += ["--output-dir", str(folder / "run"), "DATASET.NAME", "Manifest"]
    words += ["DATASET.ROOT", str(data), "DATASET.NUM_SHOTS", str(shots)]
    words += ["DATALOADER.TRAIN_X.BATCH_SIZE", str(gpu.BATCH), "OPTIM.MAX_EPOCH", str(epochs)]
    words += ["FEATURES.MODE", "full", "FEATURES.VIEWS", str(views)]
    words += ["FEATURES.DIR", str(folder / "features")]
    record = train.main(train.parse_args(words))
    took = time.perf_counter() - written
    steps = epochs * -(-sum(classes) * shots // gpu.BATCH)
    split = record["run"]["time_split"]
    return {
        "seconds_to_write_images": written - began,
        "epochs": epochs,
        "steps": steps,
        "seconds": took,
        "time_split": split,
        "peak_gpu_gib": record["run"].get("peak_gpu_memory", 0) / 2**30,
        "ms_per_step": 1000 * (split["text"] + split["rest"]) / steps,
    }


def main(arguments: list[str] | None = None) -> int:
    """Do the run and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_run")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("output/whole_run"))
    parser.add_argument("--small", action="store_true", help="in miniature, also on a CPU")
    parser.add_argument("--epochs", type=int, default=gpu.EPOCHS)
    parser.add_argument("--views", type=int, default=2, help="stored views of a training image")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), args.epochs, args.views, args.small)
    lines = [
        (f"{args.epochs} epochs, {found['steps']} steps", f"{found['seconds']:.1f} s"),
        *((f"of it {name}", f"{value:.1f} s") for name, value in found["time_split"].items()),
        ("text and rest of a step", f"{found['ms_per_step']:.2f} ms"),
        ("peak memory of the GPU", f"{found['peak_gpu_gib']:.2f} GiB"),
    ]
    text = table(("whole run", ""), lines)
    Report(args.folder, "whole_run", "A run of SoftCPT-NATA at General-10’s size").save(text, found)
    print(text, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
