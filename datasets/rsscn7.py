"""RSSCN7: 7 kinds of scenes at four scales."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class RSSCN7(FewShotDataset):
    """RSSCN7: 7 kinds of scenes at four scales."""

    dataset_dir = "RSSCN7"
    image_dir = ""
    task_name = "land cover from above"
    templates = ("a satellite photo of {}.",)
    renames = {
        "aGrass": "grass",
        "bField": "field",
        "cIndustry": "industry",
        "dRiverLake": "river or lake",
        "eForest": "forest",
        "fResident": "residential area",
        "gParking": "parking lot",
    }
    sizes = (2800,)
    num_columns = 7
