"""ImageFolder: a user's own images, one folder per class."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from dassl.data import DATASET_REGISTRY, SPLITS, Datum
from dassl.utils import UserError, shorten_list

from ._core.base import FewShotDataset
from ._core.class_names import read_class_names
from ._core.folders import (
    folders_in,
    images_by_class,
    loose_images,
    read_folders,
    report_unread,
)
from ._core.splits import Split

SPELLINGS = {  # of the folders of the parts, in any case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@DATASET_REGISTRY.register()
class ImageFolder(FewShotDataset):
    """Your own images: root/class/image, or root/{train,val,test}/class/image.

    Without ``train`` and ``test`` folders each class is divided 50/20/30; without ``val`` a fifth
    of the training images is held out for it. ``task_name.txt`` names the task, ``classnames.txt``
    or ``classnames.yaml`` its classes; without them folder names are used.
    """

    image_dir = ""

    def find_root(self, cfg) -> Path:
        """The folder of the images, which must not hold the folder of the run."""
        root, output = super().find_root(cfg), Path(cfg.OUTPUT_DIR).absolute()
        if output.is_dir() and output.is_relative_to(root):
            raise UserError(
                f"the output folder {output} is in the folder of the images {root}, where its "
                "folders look like classes; choose another --output-dir, and delete that one"
            )
        return root

    @property
    def task_name(self) -> str:
        """The folder's name, in words."""
        return self.root.name.replace("_", " ").strip() or "kind of image"

    @cached_property
    def parts(self) -> dict[str, str]:
        """Folder of each existing part (train, val, test); empty if the classes are in the root."""
        there = folders_in(self.root)
        spelled = {p: [name for name in there if name.lower() in SPELLINGS[p]] for p in SPLITS}
        found = {part: names[0] for part, names in spelled.items() if names}
        if "train" not in found or len(found) == 1:
            return {}
        for part, names in spelled.items():
            if len(names) > 1:
                raise UserError(
                    f"{self.root} has the folders {' and '.join(names)}, which both mean {part}: "
                    "put their images into one of them, or rename or remove the other"
                )
        if others := sorted(set(there) - set(found.values())):
            print(
                f"{self.root}: the folders {shorten_list(others)} beside "
                f"{', '.join(found.values())} are not read"
            )
        report_unread(self.root, loose_images(self.root))
        if "test" not in found:
            raise UserError(
                f"{self.root} has the folders {', '.join(found.values())}, but no test; evaluation "
                f"needs one: rename {found['val']} to test, and a fifth of the training images "
                "is held out for validation"
            )
        return found

    @property
    def official(self) -> bool:
        """Whether the folders say which images are for train, val and test."""
        return len(self.parts) == len(SPLITS)

    @cached_property
    def renames(self) -> dict[str, str]:
        """Class name by folder, from a file beside the images."""
        start = self.root / self.parts.get("train", "")
        return read_class_names(self.root, folders_in(start))

    def read(self, rng: random.Random) -> Split:
        """The split of the folders, or a new one."""
        if not self.parts:
            return read_folders(self.root, rng)
        classes = {
            part: images_by_class(self.root / folder, prefix=f"{folder}/")
            for part, folder in self.parts.items()
        }
        names = tuple(classes["train"])
        for part, found in classes.items():
            if strange := sorted(set(found) - set(names)):
                raise UserError(
                    f"{self.root / self.parts[part]} has class folders that {self.parts['train']} "
                    f"has not: {shorten_list(strange)}{_same_letters(strange, names)}"
                )
        items = {
            part: [Datum(p, names.index(name)) for name in found for p in found[name]]
            for part, found in classes.items()
        }
        if "val" in items:
            return Split([names], items["train"], items["val"], items["test"])
        split = Split([names], test=items["test"])
        split.hold_out(items["train"], rng, self.root / self.parts["train"])
        return split


def _same_letters(strange: Sequence[str], names: Iterable[str]) -> str:
    """What to add to an error about folders that train has, in another Unicode normalisation."""
    composed = {unicodedata.normalize("NFC", name) for name in names}
    if not any(unicodedata.normalize("NFC", name) in composed for name in strange):
        return ""
    return (
        "; train has the same letters in another Unicode normalisation, as archives made on a Mac "
        "do: rename the folders to one of the two, for example with "
        "`convmv -r -f utf8 -t utf8 --nfc --notest FOLDER`"
    )
