"""Small copies of images, embedded in a page within a budget of bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

SIDE = 112  # pixels of the longer side; a page shows them a little smaller
QUALITY = 60  # of WebP


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
        source = "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
        if len(source) > self.left:
            self.left = 0
            return ""
        self.left -= len(source)
        return source
