"""``python -m datasets check``: the splits, numbers and classes of a dataset, and its problems."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from dassl.config import CfgNode
from dassl.data import SPLITS, DatasetBase, dataset_class
from dassl.data.wrapper import decode, read_bytes
from dassl.utils import UserError, counted, shorten_list

from .base import FewShotDataset, TaskGroup, full_config
from .folders import shared_images
from .mini import is_mini

ORIENTATION, ROTATED = 0x0112, range(2, 9)  # the EXIF tag, and its values of turned images
SHOWN = 10  # problems of one kind that are listed one by one


@dataclass
class Report:
    """The findings about one dataset, as printable lines.

    Args:
        where: its folder, once that is known.
    """

    name: str
    where: Path | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.name}  {self.where or ''}".rstrip()]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  PROBLEM  {problem}" for problem in self.problems]
        return "\n".join(lines if self.problems else [*lines, "  fine"])


def single_datasets(cfg: CfgNode) -> list[tuple[type[DatasetBase], CfgNode]]:
    """The single datasets of a dataset or suite, each with its configuration."""

    def leaves(cls: type[DatasetBase], own: CfgNode) -> Iterator[tuple]:
        if not issubclass(cls, TaskGroup):
            yield cls, own
            return
        for member, member_cfg in cls.member_configs(own):
            yield from leaves(member, member_cfg)

    return list(leaves(dataset_class(cfg), full_config(cfg)))


def check(cls: type[DatasetBase], cfg: CfgNode, deep: bool = False) -> Report:
    """Check one dataset, without writing anything.

    Args:
        deep: also decode every image.
    """
    report, cfg = Report(cls.__name__), cfg.clone()
    cfg.DATASET.NUM_SHOTS = -1
    few_shot = issubclass(cls, FewShotDataset)
    if not few_shot and not getattr(cls, "dataset_dir", ""):
        report.notes.append("it is generated, so there are no files to check")
        return report
    with contextlib.redirect_stdout(io.StringIO()) as printed:  # what is not read or left out
        try:
            dataset = cls(cfg, store_split=False) if few_shot else cls(cfg)
        except UserError as error:
            report.problems.append(str(error))
    report.notes += printed.getvalue().splitlines()
    if report.problems:
        return report
    if not few_shot:
        parts = zip((dataset.train_x, dataset.val, dataset.test), SPLITS, strict=True)
        counts = ", ".join(f"{len(items or ()):,} {part}" for items, part in parts)
        report.notes.append(f"{dataset.space.content}: {counts}")
        return report
    report.where = dataset.root
    _splits(report, dataset)
    _numbers(report, dataset)
    _labels_per_image(report, dataset)
    _classes(report, dataset)
    if deep:
        _images(report, dataset, cfg.INPUT.EXIF == "apply")
    return report


def _splits(report: Report, dataset: FewShotDataset) -> None:
    there = [kind for kind in ("zhou", "dk", "own") if dataset.has_split(kind)]
    report.notes.append(f"split: {dataset.split}; files there: {', '.join(there) or 'none'}")
    for where, both in shared_images(dataset.images.parts, dataset.val_is_test):
        report.problems.append(f"{len(both)} images are in {where}: {shorten_list(both)}")


def _numbers(report: Report, dataset: FewShotDataset) -> None:
    found = tuple(len(part) for part in dataset.images.parts)
    counts = ", ".join(f"{n:,} {part}" for n, part in zip(found, SPLITS, strict=True))
    images = {d.impath for part in dataset.images.parts for d in part}
    suffixes = Counter(Path(image).suffix.lower() or "no suffix" for image in images)
    kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in suffixes.most_common())
    unit = "labels" if len(dataset.space.tasks) > 1 else "images"
    report.notes.append(f"{unit}: {counts} (files: {kinds})")
    wanted = dataset.sizes
    if is_mini(dataset.root):
        report.notes.append("a miniature: its numbers of images are not the published ones")
    elif wanted and (found if len(wanted) == 3 else (sum(found),)) != wanted:
        report.problems.append(
            f"the published numbers are {', '.join(f'{n:,}' for n in wanted)} images"
            + (" in all" if len(wanted) == 1 else "")
        )
    tasks, columns = len(dataset.space.tasks), dataset.num_classes
    if dataset.num_columns and (tasks, columns) != (dataset.num_tasks, dataset.num_columns):
        report.problems.append(
            f"{columns} classes in {tasks} tasks, but {dataset.num_columns} in "
            f"{dataset.num_tasks} are published"
        )


def _labels_per_image(report: Report, dataset: FewShotDataset) -> None:
    """How many images have a label in one task, in two, ...; nothing if none has several."""
    labels = Counter(d.impath for part in dataset.images.parts for d in part)
    counts = Counter(labels.values())
    if max(counts, default=1) > 1:
        told = ", ".join(f"{counts[n]:,} in {n}" for n in sorted(counts))
        report.notes.append(f"images with a label in a number of tasks: {told}")


def _classes(report: Report, dataset: FewShotDataset) -> None:
    for t, task in enumerate(dataset.space.tasks):
        lines = []
        for name, part in zip(SPLITS, dataset.images.parts, strict=True):
            sets = [task.kind.classes_of(d.label) for d in part if d.task == t]
            if not sets:
                continue
            per_class = Counter(c for classes in sets for c in classes)
            numbers = [per_class[label] for label in range(len(task.classnames))]
            low, high = min(numbers), max(numbers)
            lines.append(f"{low} {name}" if low == high else f"{low} to {high} {name}")
            empty = [task.classnames[label] for label, n in enumerate(numbers) if not n]
            if empty and name != "val":
                report.notes.append(
                    f"no {name} image of {len(empty)} classes: {shorten_list(empty)}"
                )
        number = f" {t}" if len(dataset.space.tasks) > 1 else ""  # of its suite it would be another
        report.notes.append(
            f"task{number} ({task.name}): {len(task.classnames)} classes with {', '.join(lines)} "
            f"images each; {task.kind.name}, {task.kind.metric(task.metric)}"
        )


def _images(report: Report, dataset: FewShotDataset, upright: bool) -> None:
    """Decode all images; find test images with the content of others, and unusual images."""
    parts = dataset.images.parts
    names = [f"{dataset.image_root}/{d.impath}" for part in parts for d in part]
    names = list(dict.fromkeys(names))
    with ThreadPoolExecutor() as pool:
        results = tqdm(
            pool.map(_look, names), total=len(names), desc=report.name, unit="image", leave=False
        )
        found = dict(zip(names, results, strict=True))
    problems = [str(result) for result in found.values() if isinstance(result, UserError)]
    looks = {name: result for name, result in found.items() if isinstance(result, _Look)}
    report.problems += problems[:SHOWN]
    if len(problems) > SHOWN:
        report.problems.append(f"and {len(problems) - SHOWN} more images that cannot be read")
    report.notes.append(f"decoded {len(looks):,} of {len(names):,} images")
    _copies(report, dataset, {name: look.digest for name, look in looks.items()})
    transparent = sum(look.transparent for look in looks.values())
    if transparent:
        report.notes.append(
            f"{counted(transparent, 'image')} with transparent pixels: transparency is ignored, "
            "and the colours that are stored below it are used"
        )
    turned = 0 if upright else sum(look.turned for look in looks.values())
    if turned:
        report.notes.append(
            f"{counted(turned, 'image')} with an EXIF rotation that is not applied; "
            "INPUT.EXIF apply turns them upright"
        )


def _copies(report: Report, dataset: FewShotDataset, digests: dict[str, str]) -> None:
    parts = dataset.images.parts
    seen = [*parts[0], *([] if dataset.val_is_test else parts[1])]
    known = {digests.get(f"{dataset.image_root}/{d.impath}"): d.impath for d in seen}
    known.pop(None, None)
    again = [
        f"{d.impath} = {known[digest]}"
        for d in parts[2]
        if (digest := digests.get(f"{dataset.image_root}/{d.impath}")) in known
    ]
    if again:
        report.notes.append(
            f"{len(again)} test images are byte for byte images of train or val: "
            f"{shorten_list(again)}"
        )


class _Look(NamedTuple):
    """What a check finds in an image file.

    Args:
        digest: of its bytes.
        turned: whether it has an EXIF rotation that Pillow does not apply by itself.
    """

    digest: str
    transparent: bool
    turned: bool


def _look(path: str) -> _Look | UserError:
    """What is in an image file, or the error if it cannot be decoded."""
    try:
        content, digest = read_bytes(path)
        decode(content, path)
    except UserError as error:
        return error
    image = Image.open(io.BytesIO(content))
    image.load()
    return _Look(digest, _is_transparent(image), image.getexif().get(ORIENTATION) in ROTATED)


def _is_transparent(image: Image.Image) -> bool:
    if "A" not in image.mode and "transparency" not in image.info:
        return False
    alpha = image.convert("RGBA").getchannel("A")
    return alpha.histogram()[255] < alpha.width * alpha.height
