"""WHU-RS19: 19 kinds of scenes in high-resolution satellite images."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset
from ._core.folders import camel_case_to_words


@DATASET_REGISTRY.register()
class WHURS19(FewShotDataset):
    """WHU-RS19: 19 kinds of scenes in high-resolution satellite images."""

    dataset_dir = "WHU-RS19"
    image_dir = ""
    task_name = "scene in a high-resolution satellite image"
    templates = ("a satellite photo of {}.",)
    sizes = (1005,)
    num_columns = 19

    def class_name(self, folder: str) -> str:
        """The words of the folder's name."""
        return camel_case_to_words(folder)
