"""``python -m datasets shots``: exporting few-shot draws to a file, and importing them."""

from __future__ import annotations

from pathlib import Path

from dassl.config import CfgNode
from dassl.data import DatasetBase
from dassl.utils import UserError, read_json, write_json

from .base import FewShotDataset
from .shots import FewShotSample
from .splits import Split

Members = list[tuple[type[DatasetBase], CfgNode]]


def export_shots(members: Members, path: Path) -> int:
    """Write the draws of single datasets as JSON; returns the number of images."""
    content, total = [], 0
    _need_draws(members)
    for cls, cfg in members:
        images = cls(cfg).images
        lists = {"train": images.train, "val": images.val}
        paths = {part: [d.impath for d in items] for part, items in lists.items()}
        content.append({"dataset": cls.__name__, **paths})
        total += sum(map(len, paths.values()))
    write_json(content, path)
    return total


def import_shots(members: Members, path: Path) -> list[Path]:
    """Store the draws of a file; they replace those of the shots and seed of ``members``.

    The file is a list with an object per dataset, as :func:`export_shots` writes it: relative
    paths under ``train`` and, if wanted, ``val``.

    Returns:
        The records that were written beside the data.

    Raises:
        UserError: another dataset, or an image that the split does not have in that part.
    """
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(c, dict) for c in content):
        raise UserError(f"{path} must hold a list with an object per dataset")
    names, wanted = [c.get("dataset") for c in content], [cls.__name__ for cls, _ in members]
    if names != wanted:
        raise UserError(f"{path} holds draws of {names}, but the command names {wanted}")
    ready = []
    _need_draws(members)
    for (cls, cfg), lists in zip(members, content, strict=True):
        shots, everything = cfg.DATASET.NUM_SHOTS, cfg.clone()
        everything.DATASET.NUM_SHOTS = -1
        dataset = cls(everything)
        name = f"{dataset.split_name}-{dataset.split}"
        draw = FewShotSample(dataset.root, dataset.image_root, name, shots, cfg.SEED)
        images = dataset.images
        split = Split([t.classnames for t in images.tasks], *images.parts)
        draw.from_file(lists, split, path)
        ready.append((draw, split))
    return [draw.save(split) for draw, split in ready]  # an error above stores none


def _need_draws(members: Members) -> None:
    for cls, _ in members:
        if not issubclass(cls, FewShotDataset):
            raise UserError(f"{cls.__name__} has no folder to store a draw in")
