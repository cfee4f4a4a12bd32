"""Figures and small copies of images as data URIs, for a page without external files."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import Any

from dassl.utils import UserError

SIDE = 112  # pixels of the longer side of a thumbnail; a page shows them a little smaller
QUALITY = 60  # of WebP


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def figure_source(draw, *args: Any) -> str:
    """A figure as an SVG data URI; "" if there is nothing to draw.

    Args:
        draw: writes a figure; called with ``args`` and the path of a file.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = draw(*args, Path(folder) / "figure.svg")
        except UserError:
            return ""
        return _data_uri("svg+xml", path.read_bytes())


class Thumbnails:
    """Makes thumbnails until their budget is used up.

    Args:
        budget: bytes of all thumbnails together, as they stand in the page.
    """

    def __init__(self, budget: int):
        self.left = budget
        self.missing = 0  # images that cannot be read

    def embed(self, path: Path) -> str:
        """A thumbnail as a data URI; "" if the image cannot be read or the budget is used up."""
        from PIL import Image, ImageOps

        if self.left <= 0:
            return ""
        try:
            with Image.open(path) as image:
                image.draft("RGB", (SIDE, SIDE))  # decodes a large JPEG at a lower resolution
                small = ImageOps.exif_transpose(image).convert("RGB")
                small.thumbnail((SIDE, SIDE))
        except Exception:  # missing, or Pillow has several for a broken file
            self.missing += 1
            return ""
        content = io.BytesIO()
        small.save(content, "WEBP", quality=QUALITY)
        source = _data_uri("webp", content.getvalue())
        if len(source) > self.left:
            self.left = 0
            return ""
        self.left -= len(source)
        return source
