"""Plant-6: six datasets of plants in one suite."""

from dassl.data import DATASET_REGISTRY

from ._core.base import TaskGroup
from .fruit_vegetable import FruitVegetable
from .kaggle_flower import KaggleFlower
from .kaggle_mushroom import KaggleMushroom
from .kaggle_vegetable import KaggleVegetable
from .plant_seedling_v1 import PlantSeedlingV1
from .plant_village import PlantVillage


@DATASET_REGISTRY.register()
class Plant6(TaskGroup):
    """Plant-6: six datasets of plants in one suite."""

    members = (
        FruitVegetable,
        KaggleFlower,
        KaggleMushroom,
        KaggleVegetable,
        PlantSeedlingV1,
        PlantVillage,
    )
