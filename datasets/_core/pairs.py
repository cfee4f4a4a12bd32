"""Images with captions: reading them, drawing few pairs, and building one retrieval task."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.data import SPLITS, DatasetBase, Datum
from dassl.utils import UserError, read_json
from image_text import PairSpace, PairTask

from .folders import missing_images, shared_images
from .layout import find_folder


@dataclass(frozen=True)
class CaptionedImage:
    """An image, by its path below the image folder, and its captions."""

    impath: str
    captions: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether it has a caption."""
        return bool(self.captions)


class PairDataset(DatasetBase):
    """Images with captions; a subclass says where they lie, or overrides :meth:`read`.

    DATASET.NUM_SHOTS is the number of training images (-1: all), each with one caption drawn by
    the seed; images for validation and testing keep all of theirs. Captions longer than the text
    tower takes are cut by the trainer.

    Attributes:
        dataset_dir: its folder under ``cfg.DATASET.ROOT``.
        image_dir: the folder in it that the paths of images start from.
        json_file: captions and split in Karpathy's layout.
        task_name: what the collection is called.
    """

    dataset_dir = ""
    image_dir = ""
    json_file = ""
    task_name = ""

    def __init__(self, cfg):
        own = "TASK_NAMES", "TEMPLATE", "METRIC"
        check_one_collection(cfg, type(self).__name__, PairSpace.content, own)
        root, parts = self.read(cfg)
        self._full_test_size = len(parts["test"])
        parts = drop_unusable(parts, root, type(self).__name__, "images", "caption")
        rng = random.Random(cfg.SEED)
        train = sample_n(cfg, parts["train"], rng, f"training images of {type(self).__name__}")
        parts["train"] = [CaptionedImage(c.impath, (rng.choice(c.captions),)) for c in train]
        self._lay_out(root, parts)

    def read(self, cfg) -> tuple[Path, dict[str, list[CaptionedImage]]]:
        """The folder of the images, and the captioned images of each part."""
        name = type(self).__name__
        root = find_folder(cfg.DATASET.ROOT, self.dataset_dir, self.image_dir, name)
        return root / self.image_dir, read_karpathy(root / self.json_file)

    def _lay_out(self, root: Path, parts: dict[str, list[CaptionedImage]]) -> None:
        texts, image, part, lists = [], [], [], []
        for number, name in enumerate(SPLITS):
            items = []
            for item in parts[name]:
                label = len(part)
                items.append(Datum(str(root / item.impath), label, caption=item.captions[0]))
                texts += item.captions
                image += [label] * len(item.captions)
                part.append(number)
            lists.append(items)
        for where, both in shared_images(lists):
            raise UserError(
                f"{type(self).__name__}: {len(both)} images are in {where}, such as {both[0]}; "
                f"remove them from one of these parts"
            )
        if not lists[0] or not lists[2]:
            raise UserError(f"{type(self).__name__} has no images to train on, or none to test on")
        train, val, test = lists
        super().__init__(
            train_x=train,
            val=val,
            test=test,
            space=PairSpace((PairTask(self.task_name, tuple(texts), tuple(image), tuple(part)),)),
            split="karpathy" if self.json_file else "own",
            image_roots=[str(root)],
            test_split_size=self._full_test_size,
        )


def drop_unusable(parts: dict[str, list], images: Path, name: str, unit: str, need: str) -> dict:
    """The items of each part that are complete and whose image files exist.

    The log counts the others.

    Args:
        images: the folder that the paths of the items start from.
        unit: what the items are, such as "questions".
        need: what an incomplete item lacks, such as "caption".
    """
    usable = {}
    for part, items in parts.items():
        complete = [item for item in items if item.complete]
        missing = set(missing_images(images, list(dict.fromkeys(x.impath for x in complete))))
        usable[part] = [item for item in complete if item.impath not in missing]
        for count, problem in (
            (len(items) - len(complete), f"have no {need}"),
            (len(complete) - len(usable[part]), f"have no image in {images}"),
        ):
            if count:
                print(f"{name}: {count:,} of {len(items):,} {part} {unit} {problem}: left out")
    return usable


def check_one_collection(cfg, name: str, content: str, own: tuple[str, ...]) -> None:
    """Refuse keys that select classes, tasks or splits in a dataset with one task and one split.

    Args:
        own: further keys that must be empty, since the dataset fixes what they would replace.
    """
    for key in own:
        if cfg.DATASET[key]:
            raise UserError(
                f"{name} has {content}, which fix their words and metrics: leave DATASET.{key} "
                f"empty; it is {cfg.DATASET[key]!r}"
            )
    for key, allowed in (
        ("SUBSAMPLE_CLASSES", ("all",)),
        ("SUBSAMPLE_TASKS", ("all", "task0")),
        ("SPLIT", ("auto",)),
    ):
        if cfg.DATASET[key] not in allowed:
            raise UserError(
                f"{name} has {content}, no classes and one split: DATASET.{key} must be "
                f"{allowed[0]}, but is {cfg.DATASET[key]!r}"
            )


def sample_n(cfg, items: list, rng: random.Random, what: str) -> list:
    """DATASET.NUM_SHOTS items drawn at random; all in their order if it is -1."""
    wanted = cfg.DATASET.NUM_SHOTS
    if wanted < 1:
        return items
    if len(items) < wanted:
        raise UserError(f"DATASET.NUM_SHOTS asks for {wanted} {what}, but there are {len(items)}")
    return rng.sample(items, wanted)


def read_karpathy(path: Path) -> dict[str, list[CaptionedImage]]:
    """Captioned images by part, from a JSON file in Karpathy's layout.

    ``{"images": [{"filename", "filepath" (optional), "split", "sentences": [{"raw"}, ...]}]}``;
    the split restval of MSCOCO is left out.
    https://cs.stanford.edu/people/karpathy/deepimagesent/

    Raises:
        UserError: another layout; the message names file and entry.
    """
    content = read_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(
            f'{path} is not in Karpathy\'s layout: it must hold {{"images": [...]}} '
            "(dataset_flickr30k.json, dataset_coco.json)"
        )
    parts: dict[str, list[CaptionedImage]] = {name: [] for name in SPLITS}
    for number, entry in enumerate(entries):
        part, item = _read_entry(entry, f"{path}, image {number}")
        if part in parts:
            parts[part].append(item)
    return parts


def _read_entry(entry: Any, where: str) -> tuple[str, CaptionedImage]:
    fields = entry if isinstance(entry, dict) else {}
    name, part, folder = (fields.get(key, "") for key in ("filename", "split", "filepath"))
    sentences = fields.get("sentences", [])
    fitting = all(isinstance(word, str) for word in (name, part, folder)) and name and part
    if not fitting or not isinstance(sentences, list):
        raise UserError(f'{where}: needs "filename", "split" and a list of "sentences"')
    raw = [s.get("raw") if isinstance(s, dict) else None for s in sentences]
    if not all(isinstance(text, str) for text in raw):
        raise UserError(f'{where}: each of its "sentences" needs a text "raw"')
    captions = tuple(clean for text in raw if (clean := " ".join(text.split()).rstrip(" .")))
    return part, CaptionedImage(f"{folder}/{name}" if folder else name, captions)
