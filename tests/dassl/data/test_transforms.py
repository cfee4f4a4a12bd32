"""What images go through before the model sees them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1

from dassl.config import get_cfg_default
from dassl.data import build_transform, transform_signature
from dassl.utils import UserError

MEAN, STD = [0.48, 0.45, 0.40], [0.26, 0.27, 0.28]


def make_cfg(size=(32, 32), transforms=("normalize",), **options):
    cfg = get_cfg_default()
    cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS = size, transforms
    cfg.INPUT.INTERPOLATION, cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = "bicubic", MEAN, STD
    cfg.INPUT.update(options)
    return cfg


def make_image(height, width, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("shape", [(37, 91), (91, 37), (8, 8), (45, 44)])
@pytest.mark.parametrize("size", [32, (32,), (32, 32), (24, 40)])
@pytest.mark.parametrize("name", ["bicubic", "bilinear", "nearest"])
def test_test_transform_is_resize_and_centre_crop(shape, size, name):
    image = make_image(*shape)
    sides = size if isinstance(size, tuple) else (size,)
    mode = v1.InterpolationMode(name)
    expected = v1.Compose(
        [
            v1.Resize(max(sides), interpolation=mode),
            v1.CenterCrop((sides[0], sides[-1])),
            v1.ToTensor(),
            v1.Normalize(MEAN, STD),
        ]
    )(image)
    cfg = make_cfg(size, ("random_resized_crop", "random_flip", "normalize"), INTERPOLATION=name)
    torch.testing.assert_close(build_transform(cfg, is_train=False)(image), expected)


def test_without_normalize_pixels_lie_between_0_and_1():
    image = make_image(20, 20, "L")
    out = build_transform(make_cfg((20, 20), ()), is_train=False)(image)
    torch.testing.assert_close(out, v1.ToTensor()(image.convert("RGB")))


def test_no_transform_keeps_the_size():
    transform = build_transform(make_cfg((), NO_TRANSFORM=True), is_train=True)
    image = make_image(13, 17)
    torch.testing.assert_close(transform(image), v1.ToTensor()(image))


@pytest.mark.parametrize(
    ("choices", "draws"),
    [
        ((), False),
        (("normalize",), False),
        (("center_crop", "normalize"), False),
        (("random_flip",), True),
        (("random_resized_crop", "random_flip", "normalize"), True),
        (("random_crop",), True),
        (("colorjitter",), True),
        (("color_jitter", "center_crop"), True),
    ],
)
def test_train_transforms(choices, draws):
    transform = build_transform(make_cfg((24, 40)), choices=choices)
    image = make_image(37, 91)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    out = transform(image)
    assert out.shape == (3, 24, 40) and out.dtype == torch.float32 and out.is_contiguous()
    assert transform.draws is draws is not torch.equal(state, torch.get_rng_state())
    views = [transform(image) for _ in range(8)]
    assert any(not torch.equal(out, view) for view in views) is draws


NEAREST = v1.InterpolationMode.NEAREST
RESIZE = v1.Resize((24, 40), interpolation=NEAREST)
TORCHVISION = {
    "random_resized_crop": [v1.RandomResizedCrop((24, 40), (0.5, 0.6), interpolation=NEAREST)],
    "random_crop": [RESIZE, v1.RandomCrop((24, 40), padding=3)],
    "center_crop": [v1.Resize(40, interpolation=NEAREST), v1.CenterCrop((24, 40))],
    "random_flip": [RESIZE, v1.RandomHorizontalFlip()],
    "color_jitter": [RESIZE, v1.RandomApply([v1.ColorJitter(0.1, 0.2, 0.3, 0.05)], p=0.9)],
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_train_transforms_are_those_of_torchvision(name):
    amounts = {
        f"COLORJITTER_{k}": v for k, v in zip("BCSHP", (0.1, 0.2, 0.3, 0.05, 0.9), strict=True)
    }
    options = {"INTERPOLATION": "nearest", "RRCROP_SCALE": (0.5, 0.6), "CROP_PADDING": 3}
    transform = build_transform(make_cfg((24, 40), (name,), **options, **amounts))
    image = make_image(37, 91)
    for seed in range(3):
        views = []
        for one in (transform, v1.Compose([*TORCHVISION[name], v1.ToTensor()])):
            torch.manual_seed(seed)
            views.append(one(image))
        torch.testing.assert_close(*views)


def test_colour_jitter_is_applied_as_often_as_asked():
    image = make_image(8, 8)
    plain = build_transform(make_cfg((8, 8)), choices=())(image)
    never = build_transform(make_cfg((8, 8), COLORJITTER_P=0.0), choices=["color_jitter"])
    assert all(torch.equal(never(image), plain) for _ in range(8))
    half = build_transform(make_cfg((8, 8), COLORJITTER_P=0.5), choices=["color_jitter"])
    same = [torch.equal(half(image), plain) for _ in range(64)]
    assert 16 < sum(same) < 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": ("random_flop",)}, "no transform named 'random_flop'; did you mean random"),
        ({"transforms": ("center_crop", "random_crop")}, "random_crop and center_crop; choose one"),
        ({"size": ()}, r"INPUT.SIZE is \(\); it takes the height and width"),
        ({"size": (1, 2, 3)}, "INPUT.SIZE is"),
        ({"size": (0, 8)}, "INPUT.SIZE is"),
        ({"INTERPOLATION": "cubic"}, "did you mean bicubic"),
        ({"PIXEL_MEAN": []}, r"INPUT.PIXEL_MEAN is \[\]; normalize takes three numbers"),
        ({"PIXEL_STD": [1.0, 0.0, 1.0]}, "above 0"),
    ],
)
def test_refuses_what_cannot_be_used(options, message):
    with pytest.raises(UserError, match=message):
        build_transform(make_cfg(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"SIZE": (64, 64)},
        {"INTERPOLATION": "bilinear"},
        {"PIXEL_MEAN": [0.5, 0.5, 0.5]},
        {"PIXEL_STD": [0.5, 0.5, 0.5]},
        {"TRANSFORMS": ()},
        {"NO_TRANSFORM": True},
        {"EXIF": "apply"},
        {"RESIZE_MODE": "squash"},
    ],
)
def test_signature_changes_with_the_transform(options):
    for is_train in (False, True):
        before = transform_signature(make_cfg(), is_train)
        assert before == transform_signature(make_cfg(), is_train)
        assert before != transform_signature(make_cfg(**options), is_train)


@pytest.mark.parametrize(
    "options",
    [{"RRCROP_SCALE": (0.5, 1.0)}, {"COLORJITTER_P": 0.5}, {"TRANSFORMS": ("random_flip",)}],
)
def test_signature_of_the_test_transform_ignores_augmentation(options):
    plain, other = make_cfg(transforms=()), make_cfg(transforms=())
    other.INPUT.update(options)
    assert transform_signature(plain, False) == transform_signature(other, False)
    assert transform_signature(plain, True) != transform_signature(other, True)
