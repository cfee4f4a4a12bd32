"""RS-8: a suite of eight remote sensing datasets, chosen by this project."""

from dassl.data import DATASET_REGISTRY

from ._core.base import TaskGroup
from .nwpu_resisc45 import NWPURESISC45
from .optimal31 import OPTIMAL31
from .patternnet import PatternNet
from .rsi_cb256 import RSICB256
from .rsscn7 import RSSCN7
from .siri_whu import SIRIWHU
from .uc_merced import UCMerced
from .whu_rs19 import WHURS19


@DATASET_REGISTRY.register()
class RS8(TaskGroup):
    """RS-8: a suite of eight remote sensing datasets, chosen by this project.

    SoftCPT's paper has a suite of this name with 208 classes, but does not name its datasets.
    These eight have 208 classes too, but so have 178 choices among the well-known ones: numbers
    measured on this suite cannot be compared with the published ones.
    """

    members = (
        NWPURESISC45,
        UCMerced,
        WHURS19,
        RSSCN7,
        PatternNet,
        OPTIMAL31,
        RSICB256,
        SIRIWHU,
    )
