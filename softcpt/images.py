"""Images to classify: read and transformed as in an evaluation, unreadable ones named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from dassl.config import CfgNode
from dassl.data import DatasetWrapper
from dassl.data.wrapper import CHECK_FOLDER, REPLACE, to_rgb
from dassl.utils import UserError

ImageSource = str | os.PathLike | Image.Image


class Loaded(NamedTuple):
    """A batch of images.

    pixels: (B, 3, H, W), of the images that could be read.
    errors: why an image could not be read, one per image of the batch; "" if it could.
    """

    pixels: torch.Tensor
    errors: list[str]


class _Images(Dataset):
    """Pixels (3, H, W) of each image, or the message of its error."""

    def __init__(self, cfg: CfgNode, images: Sequence[ImageSource]):
        self.images, self._upright = images, cfg.INPUT.EXIF == "apply"
        self._reader = DatasetWrapper(cfg, [])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor | None, str]:
        image = self.images[i]
        try:
            if isinstance(image, Image.Image):
                return self._reader.transform(self._decoded(image)), ""
            return self._reader.view(os.fspath(image))[0], ""
        except (UserError, ValueError) as error:
            return None, str(error).removesuffix(CHECK_FOLDER).removesuffix(REPLACE)

    def _decoded(self, image: Image.Image) -> Image.Image:
        """The RGB pixels of a PIL image, which may read its file only now.

        Raises:
            UserError: they cannot be read.
        """
        try:
            return to_rgb(ImageOps.exif_transpose(image) if self._upright else image)
        except Exception as error:  # a broken file can make PIL raise nearly anything
            name = name_of(image) or "in memory"
            raise UserError(f"cannot decode the image {name} ({error})") from None


def as_list(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """One image, or several, as a list.

    Raises:
        UserError: one of them is neither a path nor a PIL image.
    """
    one = isinstance(images, str | os.PathLike | Image.Image) or not isinstance(images, Iterable)
    found: list[ImageSource] = [images] if one else list(images)  # type: ignore[arg-type, list-item]
    for image in found:
        if not isinstance(image, ImageSource):
            raise UserError(
                f"images are paths or PIL images, got {type(image).__name__}; "
                "PIL.Image.fromarray makes a PIL image of a uint8 array (height, width, 3)"
            )
    return found


def name_of(image: ImageSource) -> str:
    """The path of an image; of one in memory, that of its file if there is one."""
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", ""))
    return str(Path(image))


def load_images(
    cfg: CfgNode, images: Sequence[ImageSource], batch_size: int = 0, workers: int = 0
) -> Iterator[Loaded]:
    """Batches of images, in order, by the test transform of a configuration.

    Args:
        cfg: with the input of the backbone filled in.
        batch_size: 0: as in the evaluation.
        workers: processes that read images; never more than there are batches or cores.

    Raises:
        UserError: one of the numbers is negative.
    """
    if batch_size < 0:
        raise UserError(f"the batch size must be at least 1; got {batch_size}")
    if workers < 0:
        raise UserError(f"the number of workers must be at least 0; got {workers}")
    batch_size = batch_size or cfg.DATALOADER.TEST.BATCH_SIZE
    batches = -(-len(images) // batch_size)
    yield from DataLoader(
        _Images(cfg, images),
        batch_size,
        num_workers=min(workers, batches, os.cpu_count() or 1),
        collate_fn=_collate,
        generator=torch.Generator(),  # without one, iterating advances the global generator
    )


def _collate(items: list[tuple[torch.Tensor | None, str]]) -> Loaded:
    pixels = [image for image, _ in items if image is not None]
    return Loaded(torch.stack(pixels) if pixels else torch.empty(0), [error for _, error in items])
