"""DigitCaptions: retrieval of handwritten digits by captions, without a download.

The images are Digits7's. A caption names the digit, its stroke and its slant, which are measured
on the pixels.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

from dassl.data import DATASET_REGISTRY
from dassl.utils import read_json

from ._core.digits import N_TRAIN, N_VAL, WORDS, digit_folder
from ._core.pairs import CaptionedImage, PairDataset

STYLES = {  # words for the lowest, middle and highest third of each measure
    "ink": ("thin", "", "thick"),
    "slant": ("leaning left", "upright", "leaning right"),
}


def measure(pixels: np.ndarray) -> dict[str, float]:
    """Stroke and slant of a digit (h, w): its ink in white pixels, its slant as a tangent."""
    ink = pixels.astype(float) / pixels.max()
    rows, columns = np.indices(ink.shape)
    x = columns - (ink * columns).sum() / ink.sum()
    y = rows - (ink * rows).sum() / ink.sum()
    return {
        "ink": ink.sum(),
        "slant": -(ink * x * y).sum() / (ink * y * y).sum(),  # rows count downwards
    }


@DATASET_REGISTRY.register()
class DigitCaptions(PairDataset):
    """Retrieval of handwritten digits by captions of digit, stroke and slant."""

    task_name = "digits and captions"

    def read(self, cfg) -> tuple[Path, dict[str, list[CaptionedImage]]]:
        """The image folder and the captions; ``cfg.DATASET.ROOT`` is not used.

        Of the validation or test images that share a caption only the first is kept, so that every
        text has one right image.
        """
        folder = digit_folder()
        items = captioned(folder)
        random.Random(0).shuffle(items)
        pool = N_TRAIN + N_VAL
        parts = {"train": items[:N_TRAIN], "val": items[N_TRAIN:pool], "test": items[pool:]}
        for name in ("val", "test"):
            parts[name] = drop_repeated_captions(parts[name])
        return folder / "images", parts


def drop_repeated_captions(items: list[CaptionedImage]) -> list[CaptionedImage]:
    """The first image of each caption."""
    once = {item.captions: item for item in reversed(items)}
    return list(once.values())[::-1]


def captioned(folder: Path) -> list[CaptionedImage]:
    """Every image with its caption, in the order of their names."""
    digits = read_json(folder / "digits.json")
    names = [f"{i:04d}.png" for i in range(len(digits))]
    found = [measure(np.asarray(Image.open(folder / "images" / name))) for name in names]
    words = [["the digit " + WORDS[digit]] for digit in digits]
    for key, terms in STYLES.items():
        values = np.array([one[key] for one in found])
        thirds = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="right")
        for caption, third in zip(words, thirds, strict=True):
            if terms[third]:
                caption.append(terms[third])
    return [CaptionedImage(n, (", ".join(w),)) for n, w in zip(names, words, strict=True)]
