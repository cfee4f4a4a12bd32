"""NWPU-RESISC45: 45 kinds of scenes from above."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class NWPURESISC45(FewShotDataset):
    """NWPU-RESISC45: 45 kinds of scenes from above."""

    dataset_dir = "NWPU-RESISC45"
    image_dir = ""
    task_name = "scene in an aerial image"
    templates = ("a satellite photo of {}.",)
    sizes = (31500,)
    num_columns = 45
