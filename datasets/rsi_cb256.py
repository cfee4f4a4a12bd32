"""RSI-CB256: 35 kinds of scenes, in folders by their category."""

from __future__ import annotations

import random

from dassl.data import DATASET_REGISTRY, Datum

from ._core.base import FewShotDataset
from ._core.folders import folders_in, images_by_class
from ._core.splits import Split


@DATASET_REGISTRY.register()
class RSICB256(FewShotDataset):
    """RSI-CB256: 35 kinds of scenes, in folders by their category."""

    dataset_dir = "RSI-CB256"
    image_dir = ""
    task_name = "object or land use from above"
    templates = ("a satellite photo of {}.",)
    renames = {
        "hirst": "hirst beside water",
        "parkinglot": "parking lot",
        "residents": "residential area",
        "sandbeach": "sand beach",
        "shrubwood": "shrub wood",
    }
    sizes = (24747,)
    num_columns = 35

    def read(self, rng: random.Random) -> Split:
        """A split 50/20/30 of each class of ``<category>/<class>/``; classes are sorted by name."""
        paths = {
            name: found
            for category in folders_in(self.image_root)
            for name, found in images_by_class(
                self.image_root / category, prefix=f"{category}/"
            ).items()
        }
        split = Split([tuple(sorted(paths))])
        for label, name in enumerate(sorted(paths)):
            split.divide_class([Datum(path, label) for path in paths[name]], rng, name)
        return split
