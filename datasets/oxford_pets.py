"""Oxford-IIIT Pets: 37 breeds of cats and dogs."""

from __future__ import annotations

import random

from dassl.data import DATASET_REGISTRY, Datum
from dassl.utils import UserError

from ._core.annotations import class_index, read_rows
from ._core.base import FewShotDataset
from ._core.splits import Split


@DATASET_REGISTRY.register()
class OxfordPets(FewShotDataset):
    """Oxford-IIIT Pets: 37 breeds of cats and dogs."""

    dataset_dir = "oxford_pets"
    task_name = "breed of cat or dog"
    templates = ("a photo of a {}, a type of pet.",)
    metric = "mean_acc"
    annotations = ("annotations/trainval.txt", "annotations/test.txt")
    sizes = (2944, 736, 3669)
    num_columns = 37

    def read(self, rng: random.Random) -> Split:
        """The official test images; a fifth of the other images is held out for validation."""
        names: dict[int, str] = {}
        lists = []
        for file in self.annotations:
            items = []
            for where, fields in read_rows(self.annotation(file), "image class species breed"):
                label = class_index(fields[1], self.num_columns, where)
                names.setdefault(label, fields[0].rpartition("_")[0].lower())
                items.append(Datum(f"{fields[0]}.jpg", label))
            lists.append(items)
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{self.root}/annotations: classes are missing between 1 and 37")
        split = Split([tuple(names[label] for label in sorted(names))], test=lists[1])
        split.hold_out(lists[0], rng, self.annotation(self.annotations[0]))
        return split
