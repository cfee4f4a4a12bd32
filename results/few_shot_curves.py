"""Few-shot curves: the mean over seeds against the number of training images per class."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.utils import UserError

from .aggregate import Row, Stat
from .drawing import STYLE, check_suffix, method_styles, save_figure, wrapped
from .line_labels import LINE, spread_out
from .read import OVERALL
from .shots import shots_name, shots_order, shots_title

COLUMNS = 2  # panels side by side
LETTERS, LETTERS_NARROW = 26, 15  # of a line of a method's name
WIDTH, WIDTH_NARROW = 4.5, 4.0  # inches of a panel with its names
HEIGHT = 2.9  # inches of a panel, at least
FRAME = 0.9  # inches of title and labels of an axis
DODGE = 0.016  # of the axis: neighbouring methods are drawn side by side, so that bars stay apart
DODGE_ALL = 0.06  # of the axis, at most, from the first method to the last

Points = dict[str, dict[int, Stat]]  # by method and shots


@dataclass(frozen=True)
class Panel:
    """One plot: a title and the value that it shows of each of its rows."""

    title: str
    key: str
    rows: tuple[Row, ...]

    @property
    def shots(self) -> list[int]:
        """Numbers of training images per class, -1 (all) last; 0 is left out."""
        return sorted({row.shots for row in self.rows} - {0}, key=shots_order)

    def points(self, styles: dict[str, dict]) -> Points:
        """The values by method, in the order of the styles, and by shots."""
        found: Points = {name: {} for name in styles}
        for row in self.rows:
            stat = row.stat(self.key)
            if stat.mean is not None:
                found[row.method][row.shots] = stat
        return {name: values for name, values in found.items() if values}


def draw_curves(
    rows: Sequence[Row], path: str | os.PathLike, dpi: int = 300, narrow: bool = False
) -> Path:
    """Draw a panel per group of tasks (per suite without groups); returns the path.

    Bars show +- 1 standard deviation over seeds (population). Methods that use no training images
    are dashed lines. With one number of shots there is no curve but a row per method. The suffix of
    ``path`` chooses the format (.png, .pdf, .svg).

    Args:
        narrow: one panel below the other, for a small screen.

    Raises:
        UserError: no row has a value, or matplotlib cannot write such a file.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = panels_of(rows)
    if not panels:
        raise UserError(
            "there is nothing to draw: no complete run but those on held-out or grouped tasks"
        )
    path = check_suffix(path)
    letters, width = (LETTERS_NARROW, WIDTH_NARROW) if narrow else (LETTERS, WIDTH)
    across = 1 if narrow else min(len(panels), COLUMNS)
    down = math.ceil(len(panels) / across)
    styles = method_styles(rows)
    labels = {name: wrapped(name, letters) for name in styles}
    heights = [_height(panel, panel.points(styles), labels) for panel in panels]
    by_line = [max(heights[i : i + across]) for i in range(0, len(panels), across)]
    with rc_context(STYLE):
        size = (width * across, sum(by_line) + 0.2)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(down, across, squeeze=False, height_ratios=by_line).ravel()
        for i, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
            draw = _draw_lines if len(panel.shots) != 1 else _draw_rows
            draw(ax, panel, styles, labels, by_line[i // across] - FRAME)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        if note := _spread_note(panels):
            figure.supxlabel(note, fontsize=8, color="0.3")
        save_figure(figure, path, dpi)
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


def _height(panel: Panel, points: Points, labels: dict[str, str]) -> float:
    """Inches of a panel, so that all names have room."""
    lines = sum(1 + labels[name].count("\n") for name in points)
    if len(panel.shots) == 1:
        return FRAME + 0.4 + 0.09 * len(points) + LINE * lines
    return max(HEIGHT, FRAME + LINE * lines)


def _draw_lines(
    ax, panel: Panel, styles: dict[str, dict], labels: dict[str, str], height: float
) -> None:
    """A line per method against shots, with its name at its end."""
    places = {number: float(number) for number in panel.shots}
    if -1 in places:
        places[-1] = 2.0 * max(1, *panel.shots)
    points = panel.points(styles)
    ends = _plot(ax, points, styles, places)
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(places.values()), [shots_name(number) for number in places])
    ax.minorticks_off()
    if places:
        ax.set_xlim(min(places.values()) / 1.2, max(places.values()) * 1.15)
    else:
        ax.set_xlim(1, 2)
    ax.set_xlabel("training images per class (shots)")
    _decorate(ax, panel, ax.set_ylabel)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    wanted = [(ends[name][1] - low) / (high - low) for name in points]
    shares = [LINE * (1 + labels[name].count("\n")) / height for name in points]
    for name, at in zip(points, spread_out(wanted, shares), strict=True):
        flat = ends[name][0] is None
        ax.annotate(
            labels[name],
            xy=(1.0, ends[name][1]) if flat else ends[name],
            xycoords=ax.get_yaxis_transform() if flat else "data",
            xytext=(1.05, at),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=styles[name]["color"],
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": styles[name]["color"],
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def _plot(
    ax, points: Points, styles: dict[str, dict], places: dict[int, float]
) -> dict[str, tuple[float | None, float]]:
    """Draw the lines; the last point of each, without x for a method that needs no images."""
    ends: dict[str, tuple[float | None, float]] = {}
    curves = [name for name, values in points.items() if values.keys() - {0}]
    octaves = math.log2(1.4 * max(places.values()) / min(places.values())) if curves else 0
    step = min(DODGE, DODGE_ALL / max(1, len(curves) - 1))
    for name, values in points.items():
        if 0 in values:
            mean = values[0].mean
            ax.axhline(mean, linewidth=1.3, **styles[name])
            ends[name] = None, mean
    for i, name in enumerate(curves):
        dodge = 2 ** (step * octaves * (i - (len(curves) - 1) / 2))
        curve = sorted((places[n] * dodge, stat) for n, stat in points[name].items() if n)
        x, y = [x for x, _ in curve], [stat.mean for _, stat in curve]
        ax.errorbar(x, y, yerr=[_spread(stat) for _, stat in curve], **_bars(styles[name]))
        ends[name] = x[-1], y[-1]
    return ends


def _draw_rows(
    ax, panel: Panel, styles: dict[str, dict], labels: dict[str, str], height: float
) -> None:
    """One number of shots: a row per method, a vertical line for each without training images."""
    points = panel.points(styles)
    for i, (name, values) in enumerate(points.items()):
        style = {"marker": "o", "markersize": 5.0, **styles[name], "linestyle": "none"}
        for shots, stat in values.items():
            if shots == 0:
                ax.axvline(stat.mean, linewidth=1.0, **styles[name])
            ax.errorbar([stat.mean], [i], xerr=[_spread(stat)], **_bars(style))
    ax.set_yticks(range(len(points)), [labels[name] for name in points], fontsize=8)
    ax.set_ylim(len(points) - 0.4, -0.6)
    ax.grid(False, axis="y")
    _decorate(ax, panel, ax.set_xlabel)
    ax.set_title(f"{panel.title}, {shots_title(panel.shots[0])}", fontsize=9)


def _decorate(ax, panel: Panel, name_axis) -> None:
    ax.set_title(panel.title)
    one_task = all(len(run.tasks) == 1 for row in panel.rows for run in row.runs)
    name_axis("metric (%)" if one_task else "mean over tasks (%)")


def _spread(stat: Stat) -> float:
    return stat.spread if stat.n > 1 and stat.spread is not None else 0.0


def _bars(style: dict[str, Any]) -> dict[str, Any]:
    """Options of matplotlib's errorbar."""
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.5}
    return {"elinewidth": 1.1, "capsize": 2, **edge, **style}


def _spread_note(panels: list[Panel]) -> str:
    counts = {row.stat(panel.key).n for panel in panels for row in panel.rows if row.shots != 0}
    counts.discard(0)
    if not counts or max(counts) == 1:
        return ""
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"bars: ± 1 standard deviation over {seeds} seeds"
