"""Few-shot curves: the mean over seeds against the number of training images per class."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.utils import UserError, atomic_path

from .aggregate import Row
from .read import OVERALL
from .tables import shots_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette without yellow, which is too light on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
SIZES = {"^": 6.5, "v": 6.5, "<": 6.5, ">": 6.5, "P": 6.0, "X": 6.0}  # to look equally large
ZERO_SHOT_LINES = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
COLUMNS = 3  # panels side by side
DODGE = 0.016  # of the axis: neighbouring methods are drawn side by side, so that bars stay apart
DODGE_ALL = 0.06  # of the axis, at most, from the first method to the last
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Panel:
    """One plot: a title and the value that it shows of each of its rows."""

    title: str
    key: str
    rows: tuple[Row, ...]


def save_figure(figure: Figure, path: Path, dpi: int, **options: Any) -> None:
    """Write a figure atomically; boxes replace characters that the font lacks, unwarned."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, dpi=dpi, **options)


def draw_curves(
    rows: Sequence[Row], path: str | os.PathLike, dpi: int = 300, narrow: bool = False
) -> Path:
    """Draw a panel per group of tasks (per suite without groups); returns the path.

    Bars show +- 1 standard deviation over seeds (population). Methods that use no training images
    are dashed lines. The suffix of ``path`` chooses the format (.png, .pdf, .svg).

    Args:
        narrow: one panel below the other, for a small screen.

    Raises:
        UserError: no row has a value, or matplotlib cannot write such a file.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = panels_of(rows)
    if not panels:
        raise UserError("there is nothing to draw: no complete run")
    path = check_suffix(path)
    across = 1 if narrow else min(len(panels), COLUMNS)
    down = math.ceil(len(panels) / across)
    with rc_context(STYLE):
        figure = Figure(figsize=(3.5 * across + 0.3, 2.9 * down + 0.5), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).ravel()
        styles = _styles(panels)
        for ax, panel in zip(axes, panels, strict=False):
            _draw(ax, panel, styles)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        _legend(figure, axes, styles, across, _spread_note(panels))
        save_figure(figure, path, dpi)
    return path


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


def panels_of(rows: Sequence[Row]) -> list[Panel]:
    """The panels of rows: those of a suite with several groups are its groups."""
    suites: dict[str, list[Row]] = {}
    for row in rows:
        if row.runs:
            suites.setdefault(row.suite, []).append(row)
    panels = []
    for suite, members in suites.items():
        runs = [run for row in members for run in row.runs]
        groups = list(dict.fromkeys(g for run in runs if run.grouped for g in run.groups))
        prefix = f"{suite}: " if len(suites) > 1 else ""
        named = [(f"{prefix}{group}", group) for group in groups] or [(suite, OVERALL)]
        panels += [Panel(title, key, tuple(members)) for title, key in named]
    return panels


def _styles(panels: list[Panel]) -> dict[str, dict]:
    """Line style of each method, the same in all panels; methods without shots come last."""
    names = list(dict.fromkeys(row.method for panel in panels for row in panel.rows))
    flat = {row.method for panel in panels for row in panel.rows if row.shots == 0}
    trained = [name for name in names if name not in flat]
    styles: dict[str, dict] = {}
    for i, name in enumerate(trained):
        marker = MARKERS[i % len(MARKERS)]
        styles[name] = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": marker,
            "markersize": SIZES.get(marker, 5.0),
            "linestyle": ("-", "-.")[i // len(COLOURS) % 2],
        }
    for i, name in enumerate(name for name in names if name in flat):
        line = ZERO_SHOT_LINES[i % len(ZERO_SHOT_LINES)]
        styles[name] = {"color": "0.25", "linestyle": line}
    return styles


def _draw(ax, panel: Panel, styles: dict[str, dict]) -> None:
    """One panel."""
    shots = sorted({row.shots for row in panel.rows if row.shots > 0})
    positions = {number: float(number) for number in shots}
    if any(row.shots < 0 for row in panel.rows):
        positions[-1] = 2.0 * max(shots, default=1)
    _draw_methods(ax, panel, styles, positions)
    ax.set_xscale("log", base=2)
    ticks = list(positions.items())
    ax.set_xticks([x for _, x in ticks], [shots_name(number) for number, _ in ticks])
    ax.minorticks_off()
    if positions:
        ax.set_xlim(min(positions.values()) / 1.3, max(positions.values()) * 1.3)
    ax.set_title(panel.title)
    ax.set_xlabel("training images per class (shots)")
    one_task = all(len(run.tasks) == 1 for row in panel.rows for run in row.runs)
    ax.set_ylabel("metric (%)" if one_task else "mean over tasks (%)")


def _draw_methods(ax, panel: Panel, styles: dict[str, dict], positions: dict[int, float]) -> None:
    points: dict[str, dict] = {}
    for row in panel.rows:
        stat = row.stat(panel.key)
        if stat.mean is not None:
            points.setdefault(row.method, {})[row.shots] = stat
    curves = [name for name in styles if any(points.get(name, {}).keys() - {0})]
    for name in styles:
        if 0 in points.get(name, {}):
            ax.axhline(points[name].pop(0).mean, label=name, linewidth=1.3, **styles[name])
    octaves = math.log2(1.7 * max(positions.values()) / min(positions.values())) if curves else 0
    step = min(DODGE, DODGE_ALL / max(1, len(curves) - 1))
    for i, name in enumerate(curves):
        dodge = 2 ** (step * octaves * (i - (len(curves) - 1) / 2))
        curve = sorted((positions[shots] * dodge, stat) for shots, stat in points[name].items())
        ax.errorbar(
            [x for x, _ in curve],
            [stat.mean for _, stat in curve],
            yerr=[stat.spread if stat.n > 1 else 0.0 for _, stat in curve],
            label=name,
            elinewidth=1.1,
            capsize=2,
            markeredgecolor="white",
            markeredgewidth=0.5,
            **styles[name],
        )


def _spread_note(panels: list[Panel]) -> str:
    counts = {row.stat(panel.key).n for panel in panels for row in panel.rows if row.shots != 0}
    counts.discard(0)
    if not counts or max(counts) == 1:
        return ""
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"bars: ± 1 standard deviation over {seeds} seeds"


def _legend(figure, axes, styles: dict[str, dict], across: int, note: str) -> None:
    """One legend below all panels, in the order of the methods."""
    found = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels = [name for name in styles if name in found]
    longest = max(map(len, labels))
    fitting = max(1, int((3.5 * across) / (0.075 * longest + 0.55)))
    figure.legend(
        [found[name] for name in labels],
        labels,
        loc="outside lower center",
        ncols=min(len(labels), fitting),
        title=note,
        title_fontsize=8,
    )
