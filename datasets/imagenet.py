"""ImageNet: the 1000 classes of ILSVRC 2012."""

from __future__ import annotations

import random

from dassl.data import DATASET_REGISTRY, Datum
from dassl.utils import UserError, shorten_list

from ._core.base import FewShotDataset
from ._core.folders import images_by_class
from ._core.imagenet import wordnet_names
from ._core.splits import Split


@DATASET_REGISTRY.register()
class ImageNet(FewShotDataset):
    """ImageNet: 1000 kinds of objects; the official validation images are for val and test.

    Selecting by validation (``TEST.FINAL_MODEL best_val``) would therefore use test images.
    """

    dataset_dir = "imagenet"
    task_name = "kind of object"
    official = True
    val_is_test = True
    sizes = (1281167, 50000, 50000)
    num_columns = 1000

    def read(self, rng: random.Random) -> Split:
        """Classes are the sorted folders of ``images/train``."""
        names = wordnet_names(self.root)
        train, val = (
            images_by_class(self.image_root / part, prefix=f"{part}/") for part in ("train", "val")
        )
        if wrong := sorted((set(train) ^ set(val)) | (set(train) - set(names))):
            raise UserError(
                f"{self.image_root}: train and val must have the same class folders, named by "
                f"the WordNet ids of classnames.txt; look at {shorten_list(wrong)}"
            )
        items = [
            [Datum(path, label) for label, wnid in enumerate(train) for path in part[wnid]]
            for part in (train, val)
        ]
        return Split([tuple(names[wnid] for wnid in train)], items[0], items[1], list(items[1]))
