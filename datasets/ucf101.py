"""UCF101: 101 human actions, by the middle frames of videos; the first official list."""

from __future__ import annotations

import random
import re
from pathlib import Path

from dassl.data import DATASET_REGISTRY, Datum
from dassl.utils import UserError

from ._core.annotations import read_rows
from ._core.base import FewShotDataset
from ._core.splits import Split


@DATASET_REGISTRY.register()
class UCF101(FewShotDataset):
    """UCF101: 101 human actions, by the middle frames of videos; the first official list."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    task_name = "action of a person"
    templates = ("a photo of a person doing {}.",)
    annotations = tuple(
        f"ucfTrainTestlist/{name}.txt" for name in ("classInd", "trainlist01", "testlist01")
    )
    sizes = (7639, 1898, 3783)
    num_columns = 101

    def read(self, rng: random.Random) -> Split:
        """The official test videos; a fifth of the other videos is held out for validation."""
        names, train, test = (self.annotation(name) for name in self.annotations)
        actions = [name for _, (_, name) in read_rows(names, "number action")]
        split = Split([tuple(map(_folder, actions))], test=_images(test, actions))
        split.hold_out(_images(train, actions), rng, train)
        return split


def _images(path: Path, actions: list[str]) -> list[Datum]:
    labels, items = {action: label for label, action in enumerate(actions)}, []
    for where, (line,) in read_rows(path, "video", sep="\n"):
        action, _, video = line.split()[0].partition("/")  # what follows is the class number
        if action not in labels or not video:
            raise UserError(f"{where}: classInd.txt has no action {action!r}")
        items.append(Datum(f"{_folder(action)}/{video.removesuffix('.avi')}.jpg", labels[action]))
    return items


def _folder(action: str) -> str:
    """``BabyCrawling`` as Baby_Crawling, the folder of the frames and the class name."""
    return "_".join(re.findall("[A-Z][^A-Z]*", action))
