"""Figures as data URIs, for a page without external files."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

from dassl.utils import UserError


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
        return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
