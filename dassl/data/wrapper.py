"""A list of images as a torch dataset: read, decode, augment."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dassl.utils import UserError

from .datasets import Datum
from .samplers import stable_seed
from .transforms import build_transform


def view_seed(seed: int, epoch: int, digest: str) -> int:
    """The seed of the augmentation of one image in one epoch."""
    return stable_seed(seed, epoch, digest)


def read_bytes(path: str | os.PathLike) -> tuple[bytes, str]:
    """The bytes of a file and their sha256, in hexadecimal."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(
            f"cannot read the image {path} ({error.strerror}); check the data folder and --root"
        ) from None
    return content, hashlib.sha256(content).hexdigest()


def decode(content: bytes, path: str | os.PathLike) -> Image.Image:
    """An RGB image; ``path`` is for the message if it cannot be decoded.

    Of an animation it is the first picture. 16 bits become 8; pixels of 32 bits have no known
    range and are refused.
    """
    try:
        return _rgb(Image.open(io.BytesIO(content)))
    except Exception as error:  # a broken file can make PIL raise nearly anything
        raise UserError(
            f"cannot decode the image {path} ({error}); it is damaged or no image: "
            "replace it, or take it out of the dataset and its split"
        ) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would cut every value at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; save it with 8 or 16")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


class DatasetWrapper(Dataset):
    """Images of a dataset with their labels.

    An augmentation is a function of (cfg.SEED, epoch, content of the image): neither the number
    of workers nor the order of the images changes it. An item is a dict of img (3, H, W), label,
    task, domain, index and impath.

    Args:
        transform: PIL image -> tensor; by default that of ``cfg.INPUT``. If it has an attribute
            ``draws`` that is False, it is taken to be the same every time.
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
        self._seed = cfg.SEED
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # seen by live workers

    @property
    def epoch(self) -> int:
        """The epoch whose augmentations are drawn."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch; workers that are already running follow."""
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
        """The epoch's view (3, H, W) of an image, and the sha256 of the bytes it was made from."""
        content, digest = read_bytes(path)
        return self._view(decode(content, path), digest), digest

    def _view(self, image: Image.Image, digest: str) -> Tensor:
        if not self.draws:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reseed the GPU's generators
            torch.default_generator.manual_seed(view_seed(self._seed, self.epoch, digest))
            return self.transform(image)
