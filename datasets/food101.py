"""Food-101: 101 dishes; its official split is not used, as in CoOp and SoftCPT."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class Food101(FewShotDataset):
    """Food-101: 101 dishes; its official split is not used, as in CoOp and SoftCPT."""

    dataset_dir = "food-101"
    task_name = "kind of food"
    templates = ("a photo of {}, a type of food.",)
    sizes = (50500, 20200, 30300)
    num_columns = 101
