"""The figure that shows which tasks help each other: gradients, generated contexts, gains."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import UserError

from .aggregate import mean_and_interval
from .drawing import COLOURS, STYLE, check_suffix, save_figure
from .figures import draw_fields
from .read import Run
from .shots import shots_phrase
from .task_relations import Matrix, Relations, relations_of

LEAST_RANGE = 0.2  # of the colours, so that cosines near 0 are pale


def draw_relations(runs: Sequence[Run], path: str | os.PathLike, narrow: bool = False) -> Path:
    """A row of panels per suite, method and shots; returns the path.

    Panels: cosines of the tasks' gradients, cosines of their generated contexts for methods with a
    meta network, and points gained by joint training where the tasks were also trained alone.

    Args:
        narrow: the panels below each other, for a small screen.

    Raises:
        UserError: no run recorded its tasks' gradients, or such a file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path, all_found = check_suffix(path), relations_of(runs)
    if not all_found:
        raise UserError(
            "there is nothing to draw: no complete run on several tasks was trained with "
            "TRAIN.TASK_GRADIENTS 1 or more"
        )
    tasks = max(len(found.tasks) for found in all_found)
    side = max(1.6, 0.42 * tasks)
    with rc_context(STYLE):
        rows, columns = (3 * len(all_found), 1) if narrow else (len(all_found), 3)
        size = (columns * side + (2.0 if narrow else 4.0), (side + 1.9) * rows)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).reshape(-1, 3)
        for relations, panels in zip(all_found, grid, strict=True):
            _draw_row(relations, panels, narrow)
        save_figure(figure, path, 200, bbox_inches="tight")
    return path


def _draw_row(relations: Relations, panels, narrow: bool) -> None:
    left, middle, right = panels
    gradients = _off_diagonal(relations.gradients)
    sizes = [abs(v) for row in gradients for v in row if not math.isnan(v)]
    most = max([LEAST_RANGE, *sizes])
    draw_fields(left, gradients, relations.tasks, relations.tasks, ("PuOr", -most, most), "{:.2f}")
    left.set_title(
        f"{relations.method}, {shots_phrase(relations.shots)}\ncosine of the gradients", loc="left"
    )
    if relations.contexts:
        contexts = _off_diagonal(relations.contexts)
        known = [v for row in contexts for v in row if not math.isnan(v)]
        colours = ("cividis", min(known), max(known))
        draw_fields(middle, contexts, relations.tasks, relations.tasks, colours, "{:.2f}")
        if not narrow:
            middle.set_yticks([])
        middle.set_title("cosine of the generated contexts", loc="left")
    else:
        _show_remark(middle, "no generated contexts")
    _draw_gains(right, relations, relations.tasks if narrow else None)


def _show_remark(ax, text: str) -> None:
    """A panel with a remark only."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", color="0.4", transform=ax.transAxes)


def _draw_gains(ax, relations: Relations, names: Sequence[str] | None) -> None:
    """Bars of jointly minus alone; lines show Student's 95 % interval over seeds."""
    gains = [relations.gains(t) for t in range(len(relations.tasks))]
    if not any(gains):
        _show_remark(ax, "no task was trained alone")
        return
    for t, values in enumerate(gains):
        if values:
            mean, half = mean_and_interval(values)
            ax.barh(t, mean, color=COLOURS[0], height=0.6, xerr=half, ecolor="0.4")
    ax.set_ylim(len(gains) - 0.5, -0.5)
    ax.set_yticks(range(len(gains)), names or [""] * len(gains))
    ax.tick_params(left=False)
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_xlabel("points")
    ax.set_title("jointly minus alone", loc="left")


def _off_diagonal(matrix: Matrix) -> list[list[float]]:
    """The matrix to two digits, with NaN on the diagonal, which is always 1, and where missing."""
    return [
        [math.nan if i == j or v is None else round(v, 2) + 0.0 for j, v in enumerate(row)]
        for i, row in enumerate(matrix)
    ]
