"""PatternNet: 38 kinds of scenes and objects in high-resolution images of cities."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class PatternNet(FewShotDataset):
    """PatternNet: 38 kinds of scenes and objects in high-resolution images of cities."""

    dataset_dir = "PatternNet"
    task_name = "pattern in a high-resolution aerial image"
    templates = ("a satellite photo of {}.",)
    sizes = (30400,)
    num_columns = 38
