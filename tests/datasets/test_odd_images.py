"""Images in unusual formats, and files that are not images."""

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


def pgm(values, maximum):
    height, width = values.shape
    return b"P5\n%d %d\n%d\n" % (width, height, maximum) + values.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "content",
    [
        pgm(RAMP >> 4, 4095),
        encoded(Image.fromarray(RAMP >> 4), "TIFF", tiffinfo={281: 4095}),
        pgm(RAMP, 65535),
    ],
    ids=["12-bit PGM", "12-bit TIFF", "16-bit PGM"],
)
def test_the_declared_maximum_becomes_white(content):
    found = pixels(content)[..., 0].astype(int)
    assert found.max() == 255 and found.min() == 0
    assert np.abs(found - RAMP // 256).max() <= 1


def test_a_sixteen_bit_pgm_equals_the_png():
    np.testing.assert_array_equal(
        pixels(pgm(RAMP, 65535)), pixels(encoded(Image.fromarray(RAMP), "PNG"))
    )


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_on_request(form):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    content = encoded(image, form, exif=exif)
    # Pillow rotates a TIFF as it loads it
    assert decode(content, "x").size == ((20, 40) if form == "TIFF" else (40, 20))
    upright = np.asarray(decode(content, "x", upright=True)).astype(int)
    assert upright.shape[:2] == (40, 20)
    assert upright[5, 10, 2] > 200 and upright[35, 10, 0] > 200  # blue above, red below


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
