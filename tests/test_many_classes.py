"""Ten thousand classes, trained and tested where memory is short."""

import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
TASKS, CLASSES = 10, 1000
ROOM = 600_000_000  # bytes beside what the program itself maps
STEP = ["OPTIM.MAX_EPOCH", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "1000"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A thousand images for training and one for testing, which every task names anew."""
    folder = tmp_path_factory.mktemp("many")
    rows = []
    for label in range(CLASSES):
        for part in ("train", "test")[: 2 if label == 0 else 1]:
            color = (label % 250, label // 250 * 60, 250 * (part == "test"))
            Image.new("RGB", (8, 8), color).save(folder / f"{part}{label}.png")
            rows += [(f"{part}{label}.png", f"thing {t} {label}", t, part) for t in range(TASKS)]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class", "task", "split"))
        writer.writerows((path, name, f"kind {t}", part) for path, name, t, part in rows)
    return folder


@pytest.fixture(scope="module")
def limit():
    """Bytes of address space that a run may map."""
    program = "import train; from clip import load_backbone; load_backbone('tiny/random')"
    program += "; print(open('/proc/self/statm').read().split()[0])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * resource.getpagesize() + ROOM


def train(suite, output, limit, *opts):
    command = [sys.executable, "train.py", "--trainer", "MTCoOp", "--backbone", "tiny/random"]
    command += ["--dataset-config-file", "configs/datasets/manifest.yaml", "--root", str(suite)]
    command += ["--output-dir", str(output), "--seed", "1", "DATASET.NUM_SHOTS", "1"]
    return subprocess.run(
        [*command, "DATALOADER.NUM_WORKERS", "0", *STEP, *opts],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_they_train_in_chunks_where_all_at_once_would_not_fit(suite, tmp_path, limit):
    done = train(suite, tmp_path / "auto", limit)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "10010 prompts, " in done.stdout and "; in chunks of " in done.stdout
    record = json.loads((tmp_path / "auto" / "results.json").read_text())
    assert record["status"] == "complete" and len(record["tasks"]) == TASKS

    whole = train(suite, tmp_path / "whole", limit, "MODEL.TEXT_CHUNK", "0")
    assert whole.returncode == 1 and "memory" in whole.stderr
