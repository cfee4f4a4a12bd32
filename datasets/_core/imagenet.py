"""Shared by ImageNet and its variants: class names by WordNet id, and folders named by it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from dassl.data import Datum
from dassl.utils import UserError, shorten_list

from .annotations import read_rows
from .base import FewShotDataset
from .folders import images_by_class
from .names import known_names
from .splits import Split

# CLIP has one name for missile and projectile, and one for sunglass and sunglasses.
TWINS = {"n04008634": "projectile", "n04355933": "sunglass"}


def wordnet_names(root: Path) -> dict[str, str]:
    """Class name by WordNet id, sorted by id: those of ``root/classnames.txt``, else CLIP's.

    Of two classes with the same name, one is renamed, since their prompts would be equal.
    """
    path = root / "classnames.txt"
    if path.is_file():
        rows = [fields for _, fields in read_rows(path, "id name")]
        if twice := [wnid for wnid, n in Counter(wnid for wnid, _ in rows).items() if n > 1]:
            raise UserError(f"{path} names {shorten_list(twice)} more than once")
    else:
        rows = [line.split(" ", 1) for line in known_names("ImageNet")]
    names = dict(sorted(rows))
    for wnid, other in TWINS.items():
        if wnid in names and list(names.values()).count(names[wnid]) > 1:
            names[wnid] = other
    return names


class ImageNetTest(FewShotDataset):
    """A test set for models trained on ImageNet: ``<image_dir>/<WordNet id>/<image>``.

    Attributes:
        subset: name of the list of WordNet ids that it has; all 1000 by default.
    """

    task_name = "kind of object"
    official = True
    num_columns = 1000
    ignored = ("README.txt",)
    subset = ""

    def folders(self) -> dict[str, str]:
        """Class name by the name of the class folder, in the order of the labels."""
        names = wordnet_names(self.root)
        return {wnid: names[wnid] for wnid in known_names(self.subset) or names}

    def read(self, rng: random.Random) -> Split:
        """All images are for testing."""
        classes, names = images_by_class(self.image_root, self.ignored), self.folders()
        if wrong := sorted(set(classes) ^ set(names)):
            raise UserError(
                f"{self.image_root} should have {len(names)} class folders; missing or "
                f"unexpected: {shorten_list(wrong)}"
            )
        test = [
            Datum(path, label) for label, folder in enumerate(names) for path in classes[folder]
        ]
        return Split([tuple(names.values())], test=test)
