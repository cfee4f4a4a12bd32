"""Digits7: seven questions about handwritten digits, for demonstrations and tests offline.

The images are scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test
set: 1,797 of 8 x 8 pixels in 17 grey levels. https://archive.ics.uci.edu/dataset/80
"""

from dassl.data import DATASET_REGISTRY

from ._core.base import TaskGroup
from ._core.digit_tasks import QUESTIONS


@DATASET_REGISTRY.register()
class Digits7(TaskGroup):
    """Seven questions about handwritten digits; the images come with scikit-learn.

    All tasks ask about the same images, and each draws its own shots.
    """

    members = QUESTIONS
