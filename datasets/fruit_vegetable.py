"""Kaggle's Fruit and Vegetable Image Recognition: 36 kinds."""

from __future__ import annotations

import random

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset
from ._core.folders import read_parts
from ._core.splits import Split


@DATASET_REGISTRY.register()
class FruitVegetable(FewShotDataset):
    """Kaggle's Fruit and Vegetable Image Recognition: 36 kinds."""

    dataset_dir = "fruit_vegetable"
    task_name = "fruits and vegetables image classification"
    templates = ("a photo of a {}, a type of fruit or vegetable.",)
    sizes = (1907, 767, 1151)
    num_columns = 36

    def read(self, rng: random.Random) -> Split:
        """A split 50/20/30 of each class of each of the three folders, as in SoftCPT."""
        return read_parts(self.image_root, ("train", "test", "validation"), rng)
