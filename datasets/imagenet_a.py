"""ImageNet-A: natural images that classifiers get wrong."""

from dassl.data import DATASET_REGISTRY

from ._core.imagenet import ImageNetTest


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetTest):
    """ImageNet-A: natural images of 200 of the classes that classifiers get wrong, for testing."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    sizes = (0, 0, 7500)
    num_columns = 200
    subset = "ImageNetA"
