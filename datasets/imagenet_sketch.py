"""ImageNet-Sketch: drawings of ImageNet's classes."""

from dassl.data import DATASET_REGISTRY

from ._core.imagenet import ImageNetTest


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetTest):
    """ImageNet-Sketch: drawings of the 1000 classes, for testing."""

    dataset_dir = "imagenet-sketch"
    sizes = (0, 0, 50889)
