"""Plant Seedlings, version 1: 12 species, not segmented."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class PlantSeedlingV1(FewShotDataset):
    """Plant Seedlings, version 1: 12 species, not segmented."""

    dataset_dir = "PlantSeedlingV1"
    image_dir = "Nonsegmented"
    task_name = "species of a seedling"
    templates = ("a photo of a {}, a type of seedling.",)
    num_columns = 12
