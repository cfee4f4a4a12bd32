"""SUN397: 397 scenes, indoors and outdoors; the first of the official partitions."""

from __future__ import annotations

import random
from pathlib import Path

from dassl.data import DATASET_REGISTRY, Datum
from dassl.utils import UserError

from ._core.annotations import read_rows
from ._core.base import FewShotDataset
from ._core.splits import Split


@DATASET_REGISTRY.register()
class SUN397(FewShotDataset):
    """SUN397: 397 scenes, indoors and outdoors; the first of the official partitions."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    task_name = "kind of scene"
    annotations = ("ClassName.txt", "Training_01.txt", "Testing_01.txt")
    sizes = (15880, 3970, 19850)
    num_columns = 397

    def read(self, rng: random.Random) -> Split:
        """The official test images; a fifth of the other images is held out for validation."""
        names, train, test = (self.annotation(name) for name in self.annotations)
        folders = [row[0].strip("/") for _, row in read_rows(names, "class", sep="\n")]
        split = Split([tuple(_scene(folder) for folder in folders)], test=_images(test, folders))
        split.hold_out(_images(train, folders), rng, train)
        return split


def _images(path: Path, folders: list[str]) -> list[Datum]:
    labels, items = {folder: label for label, folder in enumerate(folders)}, []
    for where, (image,) in read_rows(path, "image", sep="\n"):
        folder = image.strip("/").rpartition("/")[0]
        if folder not in labels:
            raise UserError(f"{where}: ClassName.txt has no class {folder!r}")
        items.append(Datum(image.strip("/"), labels[folder]))
    return items


def _scene(folder: str) -> str:
    """``a/apse/indoor`` as indoor apse."""
    return " ".join(reversed(folder.split("/")[1:]))
