"""ImageNetV2: new test images for ImageNet."""

from dassl.data import DATASET_REGISTRY

from ._core.imagenet import ImageNetTest


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetTest):
    """ImageNetV2, matched frequency: 10,000 new test images of the 1000 classes."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    sizes = (0, 0, 10000)

    def folders(self) -> dict[str, str]:
        """The folders are numbered, in the order of the WordNet ids."""
        return {str(i): name for i, name in enumerate(super().folders().values())}
