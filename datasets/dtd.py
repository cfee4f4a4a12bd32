"""DTD: 47 textures, named by adjectives."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class DescribableTextures(FewShotDataset):
    """DTD: 47 textures, named by adjectives."""

    dataset_dir = "dtd"
    task_name = "texture of a surface"
    templates = ("{} texture.",)
    sizes = (2820, 1128, 1692)
    num_columns = 47
