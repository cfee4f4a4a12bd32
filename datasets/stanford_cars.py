"""Stanford Cars: 196 models of cars, with their years."""

from __future__ import annotations

import random
from pathlib import Path

from dassl.data import DATASET_REGISTRY, Datum
from dassl.utils import UserError

from ._core.annotations import class_index, read_mat
from ._core.base import FewShotDataset
from ._core.splits import Split


@DATASET_REGISTRY.register()
class StanfordCars(FewShotDataset):
    """Stanford Cars: 196 models of cars, with their years."""

    dataset_dir = "stanford_cars"
    image_dir = ""
    task_name = "make, model and year of a car"
    annotations = (
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
    )
    sizes = (6509, 1635, 8041)
    num_columns = 196

    def read(self, rng: random.Random) -> Split:
        """The official test images; a fifth of the other images is held out for validation."""
        meta, train, test = (self.annotation(name) for name in self.annotations)
        names = tuple(_year_first(str(name)) for name in read_mat(meta, "class_names").tolist())
        split = Split([names], test=_images(test, "cars_test", len(names)))
        split.hold_out(_images(train, "cars_train", len(names)), rng, train)
        return split


def _images(path: Path, folder: str, count: int) -> list[Datum]:
    table = read_mat(path, "annotations")
    if not {"fname", "class"} <= set(table.dtype.names or ()):
        raise UserError(f"{path}: its annotations must have the fields 'fname' and 'class'")
    rows = zip(table["fname"].reshape(-1), table["class"].reshape(-1), strict=True)
    return [
        Datum(f"{folder}/{name}", class_index(str(label), count, f"{path}, {name}"))
        for name, label in rows
    ]


def _year_first(name: str) -> str:
    """``Audi R8 Coupe 2012`` as 2012 Audi R8 Coupe."""
    rest, _, year = name.strip().rpartition(" ")
    return f"{year} {rest}".strip()
