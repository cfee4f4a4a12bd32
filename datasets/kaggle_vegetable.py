"""Kaggle's Vegetable Image Dataset: 15 kinds."""

from __future__ import annotations

import random

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset
from ._core.folders import read_parts
from ._core.splits import Split


@DATASET_REGISTRY.register()
class KaggleVegetable(FewShotDataset):
    """Kaggle's Vegetable Image Dataset: 15 kinds."""

    dataset_dir = "kaggle_vegetable"
    task_name = "kind of vegetable"
    templates = ("a photo of a {}, a type of vegetable.",)
    sizes = (21000,)
    num_columns = 15

    def read(self, rng: random.Random) -> Split:
        """A split 50/20/30 of each class of each of the three folders, as in SoftCPT."""
        return read_parts(self.image_root, ("train", "test", "validation"), rng)
