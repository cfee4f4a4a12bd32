"""SIRI-WHU: 12 kinds of land use in Google Earth images of cities in China."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class SIRIWHU(FewShotDataset):
    """SIRI-WHU: 12 kinds of land use in Google Earth images of cities in China."""

    dataset_dir = "SIRI-WHU"
    image_dir = "12class_tif"
    task_name = "urban land use in a satellite image"
    templates = ("a satellite photo of {}.",)
    sizes = (2400,)
    num_columns = 12
