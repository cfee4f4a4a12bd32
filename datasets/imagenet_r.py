"""ImageNet-R: paintings, toys and other renditions of ImageNet's classes."""

from dassl.data import DATASET_REGISTRY

from ._core.imagenet import ImageNetTest


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetTest):
    """ImageNet-R: renditions (paintings, toys, ...) of 200 of the classes, for testing."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    sizes = (0, 0, 30000)
    num_columns = 200
    subset = "ImageNetR"
