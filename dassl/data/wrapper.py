"""A list of images as a torch dataset: read, decode, augment."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from dassl.utils import UserError

from .datasets import Datum
from .samplers import stable_seed
from .small_views import small_views
from .transforms import build_transform, transform_signature

MAX_SAMPLE, BITS_PER_SAMPLE = 281, 258  # TIFF tags
CHECK_FOLDER = "; check the data folder and --root"
REPLACE = ": replace it, or remove it from the dataset and its split"
WIDE = ("PPM", "PNG")  # formats of 16 bits that Pillow reads as mode I, PNG up to version 10


def view_seed(seed: int, epoch: int, digest: str) -> int:
    """The seed of the augmentation of one image in one epoch."""
    return stable_seed(seed, epoch, digest)


def read_bytes(path: str | os.PathLike) -> tuple[bytes, str]:
    """The bytes of a file, and their sha256 (hex)."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"cannot read the image {path} ({error.strerror}){CHECK_FOLDER}") from None
    return content, hashlib.sha256(content).hexdigest()


def decode(content: bytes, path: str | os.PathLike, upright: bool = False) -> Image.Image:
    """An RGB image from the bytes of a file: of an animation, the first frame.

    16 bits become 8: the maximum that the file declares, or else 65535, becomes 255. 32-bit
    pixels have no known range and are refused.

    Args:
        path: for the message of an error.
        upright: apply the EXIF orientation. CLIP's own preprocessing ignores it, except
            in a TIFF, which Pillow itself rotates.

    Raises:
        UserError: the bytes cannot be decoded.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()  # rotates a TIFF, whose orientation is then gone
        return to_rgb(ImageOps.exif_transpose(image) if upright else image)
    except Exception as error:  # a broken file can make PIL raise nearly anything
        unknown = isinstance(error, UnidentifiedImageError)  # its words show an address in memory
        reason = "cannot identify its format" if unknown else error
        raise UserError(
            f"cannot decode the image {path} ({reason}); it is damaged or not an image{REPLACE}"
        ) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB image with 8 bits per channel; see :func:`decode`.

    Raises:
        ValueError: its pixels have 32 bits.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in WIDE):
        # convert() would clip every value at 255
        values = np.asarray(image).astype(np.int64) * 256 // (_declared_maximum(image) + 1)
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; save it with 8 or 16")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _declared_maximum(image: Image.Image) -> int:
    """The largest pixel value by a TIFF's MaxSampleValue or BitsPerSample; 65535 if unknown.

    Pillow itself scales a PGM from its maximum to 65535.
    """
    tags = getattr(image, "tag_v2", {})
    maximum, bits = (np.atleast_1d(tags.get(tag, 0))[0] for tag in (MAX_SAMPLE, BITS_PER_SAMPLE))
    if 0 < maximum <= 65535:
        return int(maximum)
    return 2 ** int(bits) - 1 if 8 < bits < 16 else 65535


class DatasetWrapper(Dataset):
    """Images of a dataset with their labels.

    An augmentation is a function of (cfg.SEED, epoch, content of the image), independent of the
    number of workers and the order of the images. An item is a dict of img (3, H, W), label, task,
    domain, index and impath.

    Args:
        transform: PIL image -> tensor; by default that of ``cfg.INPUT``. It is deterministic if
            it has an attribute ``draws`` that is False.
        is_train: whether images are augmented.
    """

    def __init__(
        self,
        cfg,
        data_source: Sequence[Datum],
        transform: Callable[[Image.Image], Tensor] | None = None,
        is_train: bool = False,
    ):
        self.cfg, self.data_source, self.is_train = cfg, data_source, is_train
        self.transform = transform or build_transform(cfg, is_train)
        self.draws = is_train and getattr(self.transform, "draws", True)
        fixed = transform is None and not self.draws  # the same view in every epoch
        self._fixed_view = transform_signature(cfg, is_train) if fixed else ""
        self._upright = getattr(cfg.INPUT, "EXIF", "ignore") == "apply"  # Dassl has no such key
        self._seed = cfg.SEED
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # shared with workers

    @property
    def epoch(self) -> int:
        """The epoch of the augmentations."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, also of running workers."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, index: int) -> dict:
        item = self.data_source[index]
        return {
            "img": self.view(item.impath)[0],
            "label": item.label,
            "task": item.task,
            "domain": item.domain,
            "index": index,
            "impath": item.impath,
        }

    def view(self, path: str) -> tuple[Tensor, str]:
        """The epoch's view (3, H, W) of an image, and the sha256 of its file."""
        content, digest = read_bytes(path)

        def make() -> Tensor:
            return self._view(decode(content, path, self._upright), digest)

        if not self._fixed_view:
            return make(), digest
        return small_views.get((digest, self._fixed_view), make), digest

    def _view(self, image: Image.Image, digest: str) -> Tensor:
        if not self.draws:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reseed the GPU's generators
            torch.default_generator.manual_seed(view_seed(self._seed, self.epoch, digest))
            return self.transform(image)
