"""General-10: the ten datasets of CoOp in one suite."""

from dassl.data import DATASET_REGISTRY

from ._core.base import TaskGroup
from .caltech101 import Caltech101
from .dtd import DescribableTextures
from .eurosat import EuroSAT
from .fgvc_aircraft import FGVCAircraft
from .food101 import Food101
from .oxford_flowers import OxfordFlowers
from .oxford_pets import OxfordPets
from .stanford_cars import StanfordCars
from .sun397 import SUN397
from .ucf101 import UCF101


@DATASET_REGISTRY.register()
class General10(TaskGroup):
    """General-10: the ten datasets of CoOp in one suite."""

    members = (
        Caltech101,
        DescribableTextures,
        EuroSAT,
        FGVCAircraft,
        Food101,
        OxfordFlowers,
        OxfordPets,
        StanfordCars,
        SUN397,
        UCF101,
    )
