"""Kaggle's common mushroom genera: 9 of them."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class KaggleMushroom(FewShotDataset):
    """Kaggle's common mushroom genera: 9 of them."""

    dataset_dir = "kaggle_mushroom"
    image_dir = "Mushrooms"
    task_name = "genus of a mushroom"
    templates = ("a photo of a {}, a type of mushroom.",)
    num_columns = 9
