"""The feature store: one pass over images, cold and warm.

    python -m benchmarks store           # 256 photos through RN50
    python -m benchmarks store --small   # in miniature

The naive side, a plain loop over open_clip (``benchmarks/_plain.py``), reads, transforms and
encodes every image.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import train
from benchmarks._plain import plain_clip, plain_features
from benchmarks._sides import row
from benchmarks.gpu import ON_CPU
from dassl.data.datasets import DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY
from prompting import feature_loader

PHOTO = (400, 300)  # pixels


def run(small: bool = False) -> list[dict]:
    """All rows: what, naive and ours in seconds, their ratio, notes."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if small:
            return passes(folder, "tiny/random", 96)
        return passes(folder, "RN50/random", 256)


def make_photos(folder: Path, count: int) -> list[str]:
    """JPEG files of noise that is smooth, as photos are."""
    rng, paths = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for i in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        paths.append(str(folder / f"{i}.jpg"))
        Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def make_trainer(backbone: str, paths: list[str], store: Path):
    """A method whose test images are these, with their features stored."""
    args = ["--trainer", "MTCoOpHard", "--backbone", backbone, "--seed", "1"]
    args += ["DATASET.NAME", "Digits7", "VERBOSE", "False", "DATALOADER.NUM_WORKERS", "0"]
    args += ["INPUT.TRANSFORMS", "('normalize',)", "DATALOADER.TEST.BATCH_SIZE", "64"]
    args += ["FEATURES.MODE", "test", "FEATURES.DIR", str(store), *ON_CPU]
    items = [Datum(path, 0, 0, "thing") for path in paths]
    cfg = train.setup_cfg(train.parse_args(args))
    return TRAINER_REGISTRY.get("MTCoOpHard")(cfg, dataset=DatasetBase(test=items))


def forget() -> None:
    """Forget the stores that this process has opened, so that the next pass opens them anew."""
    feature_loader._open_store.cache_clear()
    feature_loader._open_digests.cache_clear()


@torch.no_grad()
def stored_test_features(trainer) -> torch.Tensor:
    """Features (n, e) of the test images."""
    forget()
    with contextlib.redirect_stdout(io.StringIO()):
        return torch.cat([trainer.image_features(b)["global"] for b in trainer.test_loader])


def passes(folder: Path, backbone: str, count: int) -> list[dict]:
    """One pass over the images: nothing stored, everything stored."""
    paths = make_photos(folder / "photos", count)
    trainer = make_trainer(backbone, paths, folder / "store")
    clip_model = trainer.clip
    model = plain_clip(clip_model.config, clip_model.state_dict())
    mean, std = clip_model.image_mean, clip_model.image_std
    size, mode = clip_model.image_size[0], clip_model.interpolation

    def naive():
        return plain_features(model, paths, size, mean, std, mode)

    naive()  # the first pass of a process also loads kernels
    plain_time, plain = timed(naive)
    cold_time, cold = timed(lambda: stored_test_features(trainer))
    warm_time, warm = timed(lambda: stored_test_features(trainer))
    error = ((cold - plain).norm() / plain.norm()).item()
    assert torch.equal(cold, warm) and error < 1e-4  # a ratio of unequal things says nothing
    what = f"features of {count} images, {backbone.split('/')[0]}"
    return [
        row(f"{what}: nothing stored", plain_time, cold_time, f"relative L2 {error:.0e}"),
        row(f"{what}: all stored", plain_time, warm_time, "equal to the stored ones"),
    ]


def timed(function):
    """Seconds, and the result."""
    start = time.perf_counter()
    found = function()
    return time.perf_counter() - start, found
