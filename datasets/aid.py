"""AID: 30 kinds of scenes in Google Earth images."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset
from ._core.folders import camel_case_to_words


@DATASET_REGISTRY.register()
class AID(FewShotDataset):
    """AID: 30 kinds of scenes in Google Earth images."""

    dataset_dir = "AID"
    image_dir = ""
    task_name = "aerial scene"
    templates = ("a satellite photo of {}.",)
    sizes = (10000,)
    num_columns = 30

    def class_name(self, folder: str) -> str:
        """The words of the folder's name."""
        return camel_case_to_words(folder)
