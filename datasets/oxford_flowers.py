"""Oxford 102 Flowers: 102 kinds of flowers."""

from __future__ import annotations

import random

from dassl.data import DATASET_REGISTRY, Datum
from dassl.utils import UserError

from ._core.annotations import class_index, read_mat, read_names
from ._core.base import FewShotDataset
from ._core.names import known_names
from ._core.splits import Split


@DATASET_REGISTRY.register()
class OxfordFlowers(FewShotDataset):
    """Oxford 102 Flowers: 102 kinds of flowers."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    task_name = "kind of flower"
    templates = ("a photo of a {}, a type of flower.",)
    metric = "mean_acc"
    annotations = ("imagelabels.mat",)
    sizes = (4093, 1633, 2463)
    num_columns = 102

    def names(self) -> tuple[str, ...]:
        """Class names from CoOp's cat_to_name.json or, without that file, the built-in copy."""
        path = self.root / "cat_to_name.json"
        if not path.is_file():
            return known_names("OxfordFlowers")
        names = read_names(path)
        if set(names) != {str(i + 1) for i in range(len(names))}:
            raise UserError(f"{path} must name the classes 1, 2, ... without gaps")
        return tuple(names[str(i + 1)] for i in range(len(names)))

    def read(self, rng: random.Random) -> Split:
        """A split 50/20/30 of each class; imagelabels.mat has the label of image i at place i."""
        names, mat = self.names(), self.annotation("imagelabels.mat")
        groups: list[list[Datum]] = [[] for _ in names]
        for i, label in enumerate(read_mat(mat, "labels").tolist(), start=1):
            label = class_index(str(label), len(names), f"{mat}, image {i}")
            groups[label].append(Datum(f"image_{i:05d}.jpg", label))
        split = Split([names])
        for label, items in enumerate(groups):
            split.divide_class(items, rng, f"class {label + 1} of {mat}")
        return split
