"""UC Merced Land Use: 21 kinds of land use in cities of the USA."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class UCMerced(FewShotDataset):
    """UC Merced Land Use: 21 kinds of land use in cities of the USA."""

    dataset_dir = "UCMerced_LandUse"
    image_dir = "Images"
    task_name = "land use in an aerial image"
    templates = ("a satellite photo of {}.",)
    renames = {
        "baseballdiamond": "baseball diamond",
        "denseresidential": "dense residential",
        "golfcourse": "golf course",
        "mediumresidential": "medium residential",
        "mobilehomepark": "mobile home park",
        "parkinglot": "parking lot",
        "sparseresidential": "sparse residential",
        "storagetanks": "storage tanks",
        "tenniscourt": "tennis court",
    }
    sizes = (2100,)
    num_columns = 21
