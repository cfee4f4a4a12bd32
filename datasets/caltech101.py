"""Caltech-101: 100 kinds of objects."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class Caltech101(FewShotDataset):
    """Caltech-101: 100 kinds of objects."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    task_name = "kind of object"
    metric = "mean_acc"
    renames = {
        "airplanes": "airplane",
        "Faces": "face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
    }
    ignored = ("BACKGROUND_Google", "Faces_easy")
    sizes = (4128, 1649, 2465)
    num_columns = 100
