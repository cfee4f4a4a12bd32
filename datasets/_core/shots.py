"""Few-shot draws, by CoOp's rule where an image has one class, and the files that record them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dassl.data import Datum
from dassl.data.label_kinds import SINGLE_LABEL, SingleLabel
from dassl.utils import UserError, read_json, shorten_list

from .folders import file_sizes
from .splits import Split, hash_lists
from .stored_files import find, store

FOLDER = "split_fewshot"


def draw_shots(
    items: list[Datum],
    shots: int,
    rng: random.Random,
    kinds: Sequence[SingleLabel] = (SINGLE_LABEL,),
) -> list[Datum]:
    """At most ``shots`` images of every class, drawn without replacement.

    Classes come in the order of their first image, as in CoOp, so that the draws are equal. The
    multi-label tasks come last, by :func:`draw_sets`.

    Args:
        kinds: kind of label of each task.
    """
    groups: dict[tuple[int, int], list[Datum]] = defaultdict(list)
    for item in items:
        if not kinds[item.task].is_set:
            groups[item.task, item.label].append(item)
    drawn = []
    for group in groups.values():
        drawn += rng.sample(group, shots) if len(group) >= shots else group
    for t, kind in enumerate(kinds):
        if kind.is_set:
            drawn += draw_sets([item for item in items if item.task == t], kind, shots, rng)
    return drawn


def draw_shared_shots(
    items: list[Datum], shots: int, rng: random.Random, kinds: Sequence[SingleLabel] = ()
) -> list[Datum]:
    """At most ``shots`` labels of every class of every task, on few images.

    The images come in random order. An image gives every label of it whose class has fewer than
    ``shots`` so far, so that it serves several tasks at once.

    Args:
        kinds: not used; every task must have one class per image.
    """
    by_image: dict[str, list[Datum]] = defaultdict(list)
    for item in items:
        by_image[item.impath].append(item)
    counts: Counter[tuple[int, int]] = Counter()
    drawn = []
    for image in rng.sample(list(by_image), len(by_image)):
        for item in by_image[image]:
            if counts[item.task, item.label] < shots:
                counts[item.task, item.label] += 1
                drawn.append(item)
    return drawn


def draw_sets(items: list[Datum], kind: SingleLabel, shots: int, rng: random.Random) -> list[Datum]:
    """Images of a multi-label task, such that ``shots`` or more of them have each class.

    Classes come from the rarest to the most frequent. Each draws images that have it, without
    replacement, until ``shots`` of the drawn ones have it; those that earlier classes have drawn
    count. Last, ``shots`` images are drawn that have none of the classes. Where there are fewer
    images than that, all are taken.
    """
    none = -1
    groups: dict[int, list[Datum]] = defaultdict(list)
    for item in items:
        for c in kind.classes_of(item.label) or (none,):
            groups[c].append(item)
    drawn: dict[Datum, None] = {}  # in the order of the draw
    for c in sorted(groups, key=lambda c: (c == none, len(groups[c]), c)):
        free = [item for item in groups[c] if item not in drawn]
        missing = shots - (len(groups[c]) - len(free))
        drawn |= dict.fromkeys(rng.sample(free, min(max(missing, 0), len(free))))
    return list(drawn)


def all_labels(drawn: list[Datum], items: list[Datum]) -> list[Datum]:
    """The items of every drawn image, in all tasks that it is labelled in."""
    images = {item.impath for item in drawn}
    return [item for item in items if item.impath in images]


@dataclass(frozen=True)
class FewShotSample:
    """One few-shot draw of one dataset, and the JSON file that records it.

    Args:
        root: the dataset's folder, beside whose images the record is kept.
        image_root: what the paths of the images start from.
        name: of the dataset and the kind of its split, such as ``OxfordPets-zhou``.
        draw: the rule, :func:`draw_shots` or another.
    """

    root: Path
    image_root: Path
    name: str
    shots: int
    seed: int
    draw: Callable[..., list[Datum]] = draw_shots

    @property
    def file(self) -> str:
        """The record's path in the dataset's folder."""
        return f"{FOLDER}/{self.name}-shot_{self.shots}-seed_{self.seed}.json"

    def subset(self, split: Split, kinds: Sequence[SingleLabel]) -> None:
        """Reduce train to the shots and val to at most 4 per class, recorded or newly drawn.

        Args:
            kinds: kind of label of each task.

        Raises:
            UserError: the record is of another split, or an image of it has changed since.
        """
        self._warn_of_small_classes(split, kinds)
        path = find(self.root, self.file)
        old = read_json(path) if path else {}
        if isinstance(old, dict) and old.get("imported"):
            self.from_file(old, split, path)
        else:
            rng = random.Random(self.seed)
            split.train = self.draw(split.train, self.shots, rng, kinds)
            split.val = self.draw(split.val, min(self.shots, 4), rng, kinds)
        if path is None:
            store(self.record(split), self.root, self.file)
        else:
            _compare(old, self.record(split), path)

    def _warn_of_small_classes(self, split: Split, kinds: Sequence[SingleLabel]) -> None:
        labels = [(d.task, d.label) for d in split.train if not kinds[d.task].is_set]
        small = [n for n in Counter(labels).values() if n < self.shots]
        if small:
            print(
                f"{self.name}: {len(small)} of {len(set(labels))} classes have fewer than "
                f"{self.shots} training images (the smallest has {min(small)}); all of them are "
                "used"
            )

    def record(self, split: Split) -> dict:
        """The content of the file: a hash, and each image's relative path and size in bytes."""
        lists = {"train": split.train, "val": split.val}
        images = {d.impath: d for items in lists.values() for d in items}
        sizes = file_sizes(self.image_root, images.values())
        return {
            "hash": hash_lists(*lists.values()),
            **{part: [d.impath for d in items] for part, items in lists.items()},
            "bytes": dict(zip(images, sizes, strict=True)),
        }

    def from_file(self, lists: dict, split: Split, source: Path) -> None:
        """Reduce train and val to the draw of a file.

        Args:
            lists: relative paths under train and, if there are any, val.
            source: the file that they come from, for the messages.
        """
        split.train, split.val = _chosen(lists, split, source)

    def save(self, split: Split) -> Path:
        """Store an imported draw, which replaces the drawn one from now on; returns its path."""
        return store({**self.record(split), "imported": True}, self.root, self.file)


def _chosen(lists: dict, split: Split, path: Path) -> list[list[Datum]]:
    parts = []
    for part, items in (("train", split.train), ("val", split.val)):
        known: dict[str, list[Datum]] = defaultdict(list)
        for item in items:
            known[item.impath].append(item)
        chosen = lists.get(part, [])
        if not isinstance(chosen, list) or not all(isinstance(p, str) for p in chosen):
            raise UserError(f"{path} is no few-shot draw: {part!r} must be a list of paths")
        if strange := [p for p in dict.fromkeys(chosen) if p not in known]:
            raise UserError(
                f"{path} names {part} images that are not in {part} of the split: "
                f"{shorten_list(strange)}; use the split that it was drawn from"
            )
        parts.append([item for p in dict.fromkeys(chosen) for item in known[p]])
    if not parts[0]:
        raise UserError(f"{path} is no few-shot draw: it has no train images")
    return parts


def _compare(old: object, new: dict, path: Path) -> None:
    """Refuse if the recorded draw ``old`` is not ``new``."""
    old = old if isinstance(old, dict) else {}
    if any(old.get(key) != new[key] for key in ("hash", "train", "val")):
        raise UserError(
            f"{path} holds another few-shot draw than this one, so the split, the labels or "
            "the kinds of the columns have changed since; put the old ones back, or delete the "
            "file to use the new ones"
        )
    before = old["bytes"] if isinstance(old.get("bytes"), dict) else {}
    if changed := [name for name, size in new["bytes"].items() if before.get(name) != size]:
        raise UserError(
            f"images have changed since {path} was written: {shorten_list(changed)}; put "
            "the old ones back, or delete the file to use the new ones"
        )
