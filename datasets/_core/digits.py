"""Scikit-learn's handwritten digits as image files, for Digits7, DigitCaptions and DigitQuestions.

1,797 images of 8 x 8 pixels in 17 grey levels: the test set of the UCI "Optical Recognition of
Handwritten Digits". https://archive.ics.uci.edu/dataset/80
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from dassl.utils import UserError, cache_folder, read_json, write_json

# sha256 over the pixels and labels as bytes; the folder is named after it
CONTENT = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
N_TRAIN, N_VAL = 700, 200  # of the pool that shots are drawn from; the other 897 are for testing
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digit_folder() -> Path:
    """The folder of the images and their digits, written on first use.

    Safe for concurrent processes: one of them writes the folder, under a lock, and renames it into
    place.
    """
    folder = cache_folder("digits7", CONTENT[:12])
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    _write(folder)
        except OSError as error:
            raise UserError(
                f"cannot write the digits to {folder} ({error.strerror}); XDG_CACHE_HOME may name "
                "a cache folder that can be written"
            ) from None
    return folder


def divided_digits(folder: Path) -> list[list[tuple[str, int]]]:
    """The (file name, digit) of the images for train, val and test, the same for all questions."""
    digits = read_json(folder / "digits.json")
    order = list(range(len(digits)))
    random.Random(0).shuffle(order)
    images = [(f"{i:04d}.png", digits[i]) for i in order]
    pool = N_TRAIN + N_VAL
    return [images[:N_TRAIN], images[N_TRAIN:pool], images[pool:]]


def _write(folder: Path) -> None:
    from sklearn.datasets import load_digits  # here, since it takes a second and is needed once

    digits = load_digits()
    pixels = digits.images.astype(np.uint8)  # (1797, 8, 8), 0 to 16
    labels = digits.target.astype(np.uint8)
    found = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    if found != CONTENT:
        raise UserError(
            f"scikit-learn's digits differ from those of Digits7 (sha256 {found[:12]}, "
            f"expected {CONTENT[:12]}); install another version of scikit-learn"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        ready = Path(scratch, "ready")
        (ready / "images").mkdir(parents=True)
        for i, image in enumerate(np.round(pixels * (255 / 16)).astype(np.uint8)):
            # uncompressed, so that the bytes do not depend on the version of zlib
            Image.fromarray(image).save(ready / "images" / f"{i:04d}.png", compress_level=0)
        write_json(labels.tolist(), ready / "digits.json")
        os.replace(ready, folder)
