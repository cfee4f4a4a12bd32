"""Kaggle's Flowers Recognition: 5 kinds."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class KaggleFlower(FewShotDataset):
    """Kaggle's Flowers Recognition: 5 kinds."""

    dataset_dir = "kaggle_flower_recognition"
    image_dir = "flowers"
    task_name = "kind of garden flower"
    templates = ("a photo of a {}, a type of flower.",)
    split_files = {"dk": "split_dk_kaggle_flower.json"}
    num_columns = 5
