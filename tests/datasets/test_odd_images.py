"""Images of every kind that people have, and files that are none."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from dassl.data.wrapper import decode
from dassl.utils import UserError

RAMP = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(content, "odd.img")
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_shades(form):
    found = pixels(encoded(Image.fromarray(RAMP), form))
    np.testing.assert_array_equal(found, np.repeat((RAMP // 256)[..., None], 3, axis=2))


def test_colours_survive_other_modes():
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    palette = red.convert("P", palette=Image.Palette.ADAPTIVE)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("blue", "lime")]
    for content in (
        encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"),
        encoded(palette, "PNG"),
        encoded(palette, "PNG", transparency=b"\x80" * 4),
        encoded(red, "GIF", save_all=True, append_images=frames),
        encoded(red.convert("RGBA"), "PNG"),
    ):
        assert np.abs(pixels(content)[0, 0].astype(int) - (255, 0, 0)).max() <= 3
    assert pixels(encoded(Image.new("1", (4, 4), 1), "PNG"))[0, 0].tolist() == [255] * 3
    assert pixels(encoded(Image.new("LA", (4, 4), (9, 50)), "PNG"))[0, 0].tolist() == [9] * 3


PHOTO = encoded(Image.fromarray((RAMP.repeat(8, 0).repeat(8, 1) >> 8).astype(np.uint8)), "JPEG")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot identify"),
        (PHOTO[:-40], "truncated"),
        (b"<html>404</html>", "cannot identify"),
        (encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "32 bits"),
        (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "32 bits"),
    ],
)
def test_what_is_no_image_is_named(content, why):
    with pytest.raises(UserError, match=f"cannot decode the image odd.img .*{why}"):
        decode(content, "odd.img")
