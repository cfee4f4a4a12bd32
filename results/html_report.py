"""The report as one HTML file without external files: tables, figures, details of each run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dassl.utils import UserError, atomic_path

from .embedded import figure_source
from .few_shot_curves import draw_curves
from .figures import draw_gains
from .relation_figure import draw_relations
from .rendering import Notes, Table
from .report import Report

TEMPLATE = "report.html.j2"


def write_report(report: Report, path: str | os.PathLike, root: str = "") -> Path:
    """Write the report as a page; returns the path.

    Args:
        root: folder of the datasets, for pictures of mistakes; "": that of each run.

    Raises:
        UserError: there is no complete run, or the reference is no method.
    """
    import jinja2

    from .mistakes import CLASSES_SHOWN  # imports numpy
    from .run_pages import run_pages

    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"an HTML report ends in .html, but --out is {path}")
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    ).get_template(TEMPLATE)
    rows = [*report.rows, *report.protocol_rows]
    text = template.render(
        suites=", ".join(dict.fromkeys(row.suite for row in rows)),
        complete=sum(run.complete for run in report.runs),
        total=len(report.runs),
        parts=[_part(i, part) for i, part in enumerate(report.parts())],
        pictures=_pictures(report),
        runs=run_pages(rows, path.parent, root),
        classes_shown=CLASSES_SHOWN,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def _part(number: int, part: Table | Notes) -> dict[str, Any]:
    """A table or a list for the template; sorting goes by numbers where there are any."""
    if isinstance(part, Notes):
        return {"id": f"part{number}", "title": part.title, "lines": part.lines}
    rows = [
        [
            {
                "text": cell.text,
                "best": cell.best,
                "sort": cell.text if cell.mean is None else repr(cell.mean),
            }
            for cell in row
        ]
        for row in part.rows
    ]
    return {
        "id": f"part{number}",
        "title": part.title,
        "head": part.head,
        "rows": rows,
        "keys": part.keys,
        "notes": part.notes,
    }


def _pictures(report: Report) -> list[dict[str, str]]:
    """The figures as SVG inside the page, each with an alternative text."""
    drawn: list[tuple[Callable, Sequence, str, str]] = [
        (
            draw_curves,
            report.rows,
            "Few-shot curves",
            "Mean over tasks against training images per class; the table by shots holds the "
            "numbers.",
        ),
        (
            draw_gains,
            report.rows,
            "Gain over zero-shot, task by task",
            "Points by which each method is above or below zero-shot CLIP on each task; the table "
            "task by task holds the numbers.",
        ),
        (
            draw_relations,
            report.runs,
            "Which tasks help each other",
            "Cosines between the tasks' gradients and between their generated contexts, and points "
            "gained by joint training; the tables of that name hold the numbers.",
        ),
    ]
    found = []
    for draw, values, title, words in drawn:
        if source := figure_source(draw, values):
            narrow = figure_source(partial(draw, narrow=True), values)
            found.append({"title": title, "words": words, "source": source, "narrow": narrow})
    return found
