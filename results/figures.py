"""Figures of gains over zero-shot by task, of training curves and of similarities."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dassl.utils import UserError

from .aggregate import Row
from .compare import same_measure
from .drawing import (
    COLOURS,
    HATCHES,
    STYLE,
    check_suffix,
    hatch_of,
    method_styles,
    save_figure,
    wrapped,
)
from .few_shot_curves import draw_curves
from .shots import shots_order, shots_title
from .training_curves import Curve

PADDING = 0.9  # inches for title and labels of a panel
BARS = len(HATCHES)  # methods that bars can show; more become a heat map
FIELD = 0.4  # inches of a field of a heat map, which holds a number


@dataclass(frozen=True)
class Gains:
    """Points above zero-shot on a suite.

    Args:
        shots: their number, in words.
        methods: gain and spread of each task, by method.
    """

    suite: str
    shots: str
    tasks: list[str]
    methods: dict[str, list[tuple[float, float]]]


def draw_gains(
    rows: Sequence[Row], path: str | os.PathLike, dpi: int = 300, narrow: bool = False
) -> Path:
    """Points above or below zero-shot by task, at the largest number of shots: a panel per suite.

    Bars show +- 1 standard deviation over seeds (population); zero-shot is taken as fixed.

    Args:
        narrow: half as wide, with the legend below, for a small screen.

    Raises:
        UserError: no suite has zero-shot and another method, or such a file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path = check_suffix(path)
    suites = dict.fromkeys(row.suite for row in rows)
    panels = [panel for suite in suites if (panel := gains_of(rows, suite))]
    if not panels:
        raise UserError("there is nothing to draw: no suite has both zero-shot and another method")
    styles = method_styles(rows)
    heights = [
        # a narrow panel also holds the legend and a second line of the title
        _height(panel) + (0.8 + 0.1 * len(panel.methods) if narrow else 0.0)
        for panel in panels
    ]
    most = max(len(panel.methods) for panel in panels)
    width = 4.0 if narrow else max(7.2, 2.6 + FIELD * most if most > BARS else 0.0)
    with rc_context(STYLE):
        figure = Figure(figsize=(width, sum(heights) + 0.4), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for ax, panel in zip(axes, panels, strict=True):
            if len(panel.methods) <= BARS:
                _draw_bars(ax, panel, styles, narrow)
            else:
                _draw_map(ax, panel, narrow)
            title = ("\n" if narrow else ", ").join((panel.suite, panel.shots))
            ax.set_title(title, loc="right" if narrow else None)
        save_figure(figure, path, dpi)
    return path


def _height(panel: Gains) -> float:
    """Inches of a panel."""
    if len(panel.methods) <= BARS:
        return PADDING + max(0.5, len(panel.tasks) * (0.14 + 0.13 * len(panel.methods)))
    return 1.6 + 0.28 * len(panel.tasks)


def gains_of(rows: Sequence[Row], suite: str) -> Gains | None:
    """The gains on a suite at the largest number of shots; None without zero-shot or a method."""
    members = [row for row in rows if row.suite == suite and row.runs]
    zero = next((row for row in members if row.shots == 0), None)
    trained = [row for row in members if row.shots != 0 and zero and same_measure(row, zero)]
    if not trained:
        return None
    most = max((row.shots for row in trained), key=shots_order)
    tasks = list(zero.runs[0].tasks)
    methods = {}
    for row in trained:
        if row.shots == most:
            stats = [(row.stat(task), zero.stat(task).mean) for task in tasks]
            methods[row.method] = [
                (s.mean - z, s.spread if s.n > 1 else 0.0)
                if s.mean is not None and z is not None
                else (float("nan"), 0.0)
                for s, z in stats
            ]
    return Gains(suite, shots_title(most), tasks, methods)


def _draw_bars(ax, panel: Gains, styles: dict, narrow: bool) -> None:
    tasks, methods = panel.tasks, panel.methods
    spread = any(value for gains in methods.values() for _, value in gains)
    width = 0.8 / len(methods)
    for i, (method, gains) in enumerate(methods.items()):
        ax.barh(
            [t + (i - (len(methods) - 1) / 2) * width for t in range(len(tasks))],
            [gain for gain, _ in gains],
            height=width * 0.92,
            xerr=[value for _, value in gains] if spread else None,
            color=styles[method]["color"],
            hatch=hatch_of(styles[method]),
            edgecolor="white",
            linewidth=0.4,
            error_kw={"elinewidth": 1.0, "ecolor": "0.2"},
            label=wrapped(method, 18 if narrow else 26),
        )
    ax.grid(False, axis="y")
    ax.axvline(0, color="0.2", linewidth=1.0)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.invert_yaxis()
    note = " (lines: ± 1 standard deviation over seeds)" if spread else ""
    ax.set_xlabel(f"points above zero-shot{note}")
    if narrow:
        below = -0.45 / (_height(panel) - PADDING)  # 0.45 inches, in heights of the axes
        note = " (± 1 std over seeds)" if spread else ""
        ax.set_xlabel(f"points above zero-shot{note}", loc="right")
        ax.legend(loc="upper right", bbox_to_anchor=(1.0, below), ncols=2)
    else:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_map(ax, panel: Gains, narrow: bool) -> None:
    """A heat map, if there are too many methods for bars; a narrow one has no numbers."""
    tasks, methods = panel.tasks, panel.methods
    matrix = [[methods[method][t][0] for method in methods] for t in range(len(tasks))]
    most = max((abs(v) for row in matrix for v in row if not math.isnan(v)), default=1.0)
    names = [wrapped(name, 26) for name in methods]
    form = "" if narrow else "{:+.1f}"
    image = draw_fields(ax, matrix, tasks, names, ("PuOr", -most, most), form)
    if narrow:
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        ax.set_yticks(range(len(tasks)), tasks, fontsize=7)
    ax.figure.colorbar(
        image,
        ax=ax,
        shrink=0.8,
        label="points above zero-shot",
        location="bottom" if narrow else "right",
    )


def draw_fields(ax, matrix, rows: Sequence[str], names: Sequence[str], colours, form: str):
    """A heat map; ``colours`` is its colour map and the values at its ends.

    Args:
        form: the format of the numbers; "" for none.
    """
    cmap, low, high = colours
    image = ax.imshow(matrix, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            if form and not math.isnan(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
                text = form.format(value).replace("-", "−")
                colour = "black" if light else "white"
                ax.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return image


def draw_training(curves: dict[str, dict[str, Curve]], path: str | os.PathLike) -> Path:
    """Training curves of one run: a panel per scalar, a line per part of the run.

    Args:
        curves: as :func:`~results.training_curves.read_curves` gives them.

    Raises:
        UserError: there is no curve, or such a file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path = check_suffix(path)
    if not curves:
        raise UserError("there is nothing to draw: no training curve")
    with rc_context(STYLE):
        figure = Figure(figsize=(3.3 * len(curves), 2.4), layout="constrained")
        axes = figure.subplots(1, len(curves), squeeze=False).ravel()
        for ax, (tag, parts) in zip(axes, sorted(curves.items()), strict=True):
            for i, (part, curve) in enumerate(sorted(parts.items())):
                ax.plot(
                    [step for step, _ in curve],
                    [value for _, value in curve],
                    color=COLOURS[i % len(COLOURS)],
                    linestyle=("-", "--")[i // len(COLOURS) % 2],
                    linewidth=1.2,
                    label=part,
                )
            ax.set_title(tag)
            ax.set_xlabel("step")
        if len(next(iter(curves.values()))) > 1:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside right center", fontsize=7)
        save_figure(figure, path, 150)
    return path


def draw_similarity(
    matrix: Sequence[Sequence[float]], names: Sequence[str], path: str | os.PathLike
) -> Path:
    """Cosines between the contexts of tasks as a heat map with numbers.

    Colours span the values off the diagonal, which may all be close to 1.

    Raises:
        UserError: such a file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path, n = check_suffix(path), len(names)
    off = [matrix[i][j] for i in range(n) for j in range(n) if i != j]
    low, high = min(off), max(off)
    size = max(3.0, 0.55 * n)
    with rc_context(STYLE):
        figure = Figure(figsize=(size + 1.8, size + 0.6), layout="constrained")
        ax = figure.subplots()
        colours = ("cividis", low, max(high, low + 1e-6))
        image = draw_fields(ax, matrix, names, names, colours, "{:.2f}")
        figure.colorbar(image, ax=ax, shrink=0.8, label="cosine of the generated contexts")
        save_figure(figure, path, 200, bbox_inches="tight")
    return path


def draw_all(rows: Sequence[Row], folder: str | os.PathLike, pdf: bool = False) -> list[Path]:
    """Few-shot curves and gains over zero-shot, each as PNG and SVG; returns what was drawn.

    Args:
        pdf: as PDF instead.

    Raises:
        UserError: there is no complete run.
    """
    folder, drawn = Path(folder), []
    for suffix in (".pdf",) if pdf else (".png", ".svg"):
        drawn.append(draw_curves(rows, folder / f"curves{suffix}"))
        if any(gains_of(rows, row.suite) for row in rows):
            drawn.append(draw_gains(rows, folder / f"gains{suffix}"))
    return drawn
