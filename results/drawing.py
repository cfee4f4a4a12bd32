"""What all figures share: their look, the colours of methods, how they are written."""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.utils import UserError, atomic_path

from .aggregate import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette without yellow, which is too light on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
SIZES = {"^": 6.5, "v": 6.5, "<": 6.5, ">": 6.5, "P": 6.0, "X": 6.0}  # to look equally large
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "oo")
ZERO_SHOT_LINES = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,  # letters stay letters, as publishers ask
}


def method_styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each method, for every figure of these rows.

    Methods without training images come last, grey and without a marker.
    """
    names = dict.fromkeys(row.method for row in rows if row.runs)
    flat = {row.method for row in rows if row.shots == 0}
    styles: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(name for name in names if name not in flat):
        marker = MARKERS[i % len(MARKERS)]
        styles[name] = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": marker,
            "markersize": SIZES.get(marker, 5.0),
            "linestyle": ("-", "-.")[i // len(COLOURS) % 2],
        }
    for i, name in enumerate(name for name in names if name in flat):
        styles[name] = {"color": "0.25", "linestyle": ZERO_SHOT_LINES[i % len(ZERO_SHOT_LINES)]}
    return styles


def hatch_of(style: dict[str, Any]) -> str:
    """The hatch of bars of a colour; none for the grey of methods without training images."""
    return dict(zip(COLOURS, HATCHES, strict=True)).get(style["color"], "")


def wrapped(name: str, width: int) -> str:
    """A name in lines of about ``width`` letters."""
    return "\n".join(textwrap.wrap(name, width)) or name


def save_figure(figure: Figure, path: Path, dpi: int, **options: Any) -> None:
    """Write a figure atomically; boxes replace characters that the font lacks, unwarned."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, dpi=dpi, **options)


def check_suffix(path: str | os.PathLike) -> Path:
    """The path of a figure.

    Raises:
        UserError: matplotlib cannot write such a file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    if path.suffix.lstrip(".").lower() not in FigureCanvasAgg.get_supported_filetypes():
        raise UserError(f"cannot draw {path}; a figure ends in .png, .pdf or .svg")
    return path
