"""EuroSAT: 10 kinds of land use and cover, seen by Sentinel-2."""

from dassl.data import DATASET_REGISTRY

from ._core.base import FewShotDataset


@DATASET_REGISTRY.register()
class EuroSAT(FewShotDataset):
    """EuroSAT: 10 kinds of land use and cover, seen by Sentinel-2."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    task_name = "land use or land cover in a satellite image"
    templates = ("a centered satellite photo of {}.",)
    renames = {
        "AnnualCrop": "Annual Crop Land",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "SeaLake": "Sea or Lake",
    }
    sizes = (13500, 5400, 8100)
    num_columns = 10
