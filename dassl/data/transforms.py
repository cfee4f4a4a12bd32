"""Transforms from a PIL image to a tensor: augmentation, or resize and crop at test time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from dassl.utils import UserError, unknown_name

INTERPOLATIONS = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}
CROPS = ("random_resized_crop", "random_crop", "center_crop")
CHOICES = (*CROPS, "random_flip", "color_jitter", "normalize")
ALIASES = {"colorjitter": "color_jitter"}


class Transform:
    """Steps on a PIL image, conversion to a tensor in [0, 1], then (x - mean) / std.

    Args:
        draws: whether a step uses torch's random generator.
    """

    def __init__(
        self,
        steps: Sequence[Callable[[Image.Image], Image.Image]],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        draws: bool = False,
    ):
        self.steps, self.draws = list(steps), draws
        # x / 255 and the normalisation are one multiplication and one subtraction
        std = torch.tensor([1.0] if std is None else list(std), dtype=torch.float64)
        mean = torch.tensor([0.0] if mean is None else list(mean), dtype=torch.float64)
        self._scale = (1 / (255 * std)).float().view(-1, 1, 1)
        self._shift = (mean / std).float().view(-1, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, H, W) float."""
        for step in self.steps:
            image = step(image)
        image = image if image.mode == "RGB" else image.convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # (3, H, W)
        return pixels.float().contiguous().mul_(self._scale).sub_(self._shift)


def build_transform(
    cfg, is_train: bool = True, choices: Sequence[str] | None = None
) -> Callable[[Image.Image], Tensor]:
    """The transform that ``cfg.INPUT`` describes: PIL image -> (3, H, W) float.

    Args:
        choices: names of transforms, instead of ``cfg.INPUT.TRANSFORMS``.

    Raises:
        UserError: an unknown name, two crops, or a missing value.
    """
    options = cfg.INPUT
    if options.NO_TRANSFORM:
        return Transform([])
    chosen = _known(options.TRANSFORMS if choices is None else choices)
    mean = std = None
    if "normalize" in chosen:
        mean, std = _channels(options, "PIXEL_MEAN"), _channels(options, "PIXEL_STD")
    if not is_train:
        return Transform(_to_centre(options), mean, std)
    steps, draws = _crop(options, chosen), bool({"random_resized_crop", "random_crop"} & chosen)
    if "random_flip" in chosen:
        steps.append(v2.RandomHorizontalFlip())
    if "color_jitter" in chosen:
        amounts = [getattr(options, f"COLORJITTER_{letter}") for letter in "BCSH"]
        steps.append(v2.RandomApply([v2.ColorJitter(*amounts)], p=options.COLORJITTER_P))
    draws = draws or bool({"random_flip", "color_jitter"} & chosen)
    return Transform(steps, mean, std, draws)


def transform_signature(cfg, is_train: bool) -> str:
    """A string that changes with the transform, for the keys of caches."""
    options = cfg.INPUT
    newer = {"EXIF": ("ignore",), "RESIZE_MODE": ("", "shortest")}  # what the older keys meant
    keys = [key for key, old in newer.items() if getattr(options, key, old[0]) not in old]
    keys += ["NO_TRANSFORM", "TRANSFORMS", "SIZE", "INTERPOLATION", "PIXEL_MEAN", "PIXEL_STD"]
    if is_train:
        keys += ["CROP_PADDING", "RRCROP_SCALE", *(f"COLORJITTER_{letter}" for letter in "BCSHP")]
    values = {key: getattr(options, key) for key in keys}
    chosen = _known(values["TRANSFORMS"])
    values["TRANSFORMS"] = sorted(chosen if is_train else chosen & {"normalize"})
    versions = [torchvision.__version__, PIL.__version__]
    return json.dumps(["train" if is_train else "test", values, versions], sort_keys=True)


def _known(choices: Sequence[str]) -> set[str]:
    chosen = {ALIASES.get(choice, choice) for choice in choices}
    for choice in sorted(chosen):
        if choice not in CHOICES:
            raise unknown_name("transform", choice, CHOICES)
    if len(crops := [name for name in CROPS if name in chosen]) > 1:
        raise UserError(f"INPUT.TRANSFORMS holds {' and '.join(crops)}; choose one crop")
    return chosen


def _crop(options, chosen: set[str]) -> list[Callable]:
    """Steps that bring a training image to INPUT.SIZE."""
    size, mode = _size(options), _interpolation(options)
    if "random_resized_crop" in chosen:
        scale = tuple(options.RRCROP_SCALE)
        return [v2.RandomResizedCrop(size, scale=scale, interpolation=mode)]
    if "center_crop" in chosen:
        return _to_centre(options)
    resize = v2.Resize(size, interpolation=mode)
    if "random_crop" in chosen:
        return [resize, v2.RandomCrop(size, padding=options.CROP_PADDING)]
    return [resize]


def _to_centre(options) -> list[Callable]:
    """Resize of the shorter side to max(SIZE), then a centre crop; or of both sides to SIZE."""
    size, mode = _size(options), _interpolation(options)
    if getattr(options, "RESIZE_MODE", "") == "squash":
        return [v2.Resize(size, interpolation=mode)]
    return [v2.Resize(max(size), interpolation=mode), v2.CenterCrop(size)]


def _size(options) -> tuple[int, int]:
    size = options.SIZE
    sides = (size,) if isinstance(size, int) else tuple(size)
    if len(sides) not in (1, 2) or not all(isinstance(s, int) and s > 0 for s in sides):
        raise UserError(
            f"INPUT.SIZE is {size!r}; it takes the height and width in pixels, such as "
            "(224, 224), unless a backbone gives them"
        )
    return sides[0], sides[-1]


def _interpolation(options) -> InterpolationMode:
    if options.INTERPOLATION not in INTERPOLATIONS:
        raise unknown_name("INPUT.INTERPOLATION", options.INTERPOLATION, INTERPOLATIONS)
    return INTERPOLATIONS[options.INTERPOLATION]


def _channels(options, key: str) -> list[float]:
    values = list(getattr(options, key))
    if len(values) != 3 or (key == "PIXEL_STD" and not all(v > 0 for v in values)):
        raise UserError(
            f"INPUT.{key} is {values}; normalize takes three numbers, for red, green and blue"
            f"{', above 0' if key == 'PIXEL_STD' else ''}, unless a backbone gives them"
        )
    return values
