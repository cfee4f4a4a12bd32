"""OPTIMAL-31: 31 kinds of scenes from above."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class OPTIMAL31(FewShotDataset):
    """OPTIMAL-31: 31 kinds of scenes from above."""

    dataset_dir = "OPTIMAL-31"
    image_dir = "Images"
    task_name = "scene in a satellite image"
    templates = ("a satellite photo of {}.",)
    sizes = (1860,)
    num_columns = 31
