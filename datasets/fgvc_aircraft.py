"""FGVC-Aircraft: 100 variants of aircraft, in the official split."""

from __future__ import annotations

import random

from dassl.data import DATASET_REGISTRY, SPLITS, Datum
from dassl.utils import UserError

from ._core.annotations import read_rows
from ._core.base import FewShotDataset
from ._core.splits import Split


@DATASET_REGISTRY.register()
class FGVCAircraft(FewShotDataset):
    """FGVC-Aircraft: 100 variants of aircraft, in the official split."""

    dataset_dir = "fgvc_aircraft"
    task_name = "aircraft variant"
    templates = ("a photo of a {}, a type of aircraft.",)
    metric = "mean_acc"
    annotations = ("variants.txt", *(f"images_variant_{part}.txt" for part in SPLITS))
    official = True
    sizes = (3334, 3333, 3333)
    num_columns = 100

    def read(self, rng: random.Random) -> Split:
        """The official lists of images; labels follow the order of variants.txt."""
        rows = read_rows(self.annotation("variants.txt"), "variant", sep="\n")
        names = tuple(name for _, (name,) in rows)
        parts = []
        for part in SPLITS:
            path, items = self.annotation(f"images_variant_{part}.txt"), []
            for where, (image, name) in read_rows(path, "image variant"):
                if name not in names:
                    raise UserError(f"{where}: variants.txt has no variant {name!r}")
                items.append(Datum(f"{image}.jpg", names.index(name)))
            parts.append(items)
        return Split([names], *parts)
