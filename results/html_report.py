"""The report as one HTML file without external files: tables, figures, details of each run."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dassl.utils import UserError, atomic_path, flat

from .aggregate import Row, aggregate
from .compare import shots_phrase
from .few_shot_curves import draw_curves
from .figures import draw_gains, draw_training
from .held_out import is_held_out
from .mistakes import find_mistakes
from .read import Run
from .rendering import Notes, Table
from .report import Choices, report_parts
from .settings import read_config
from .training_curves import read_curves

TEMPLATE = Path(__file__).with_name("report.html.j2")
LOG_LINES = 40
CURVES = 200  # runs whose training curves and mistakes are shown: each takes time and 50 kB


def write_report(runs: Sequence[Run], choices: Choices, path: str | os.PathLike) -> Path:
    """Write the report over runs; returns the path.

    Raises:
        UserError: there is no complete run, or the reference is no method.
    """
    import jinja2

    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"an HTML report ends in .html, but --out is {path}")
    rows = aggregate(runs, choices.order)
    template = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    ).from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        suites=", ".join(dict.fromkeys(row.suite for row in rows)),
        complete=sum(run.complete for run in runs),
        total=len(runs),
        parts=[_part(i, part) for i, part in enumerate(report_parts(runs, choices))],
        pictures=_pictures(aggregate([r for r in runs if not is_held_out(r)], choices.order)),
        runs=[
            _page(i, run, row, path.parent, i < CURVES)
            for i, (run, row) in enumerate(_placed(rows))
        ],
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _placed(rows: Sequence[Row]) -> list[tuple[Run, Row]]:
    return [(run, row) for row in rows for run in (*row.runs, *row.unfinished, *row.repeats)]


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


def _pictures(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The figures as SVG inside the page, each with an alternative text."""
    drawn = [
        (
            draw_curves,
            "Few-shot curves",
            "Mean over tasks against training images per class, a line per method; the table by "
            "shots holds the numbers.",
        ),
        (
            draw_gains,
            "Gain over zero-shot, task by task",
            "Points by which each method is above or below zero-shot CLIP on each task; the table "
            "task by task holds the numbers.",
        ),
    ]
    found = []
    for draw, title, words in drawn:
        if source := _svg(draw, rows):
            narrow = _svg(partial(draw, narrow=True), rows)
            found.append({"title": title, "words": words, "source": source, "narrow": narrow})
    return found


def _svg(draw, *args: Any) -> str:
    """A figure as a data URI; "" if there is nothing to draw."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = draw(*args, Path(folder) / "figure.svg")
        except UserError:
            return ""
        return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _page(number: int, run: Run, row: Row, place: Path, drawn: bool) -> dict[str, Any]:
    """The details of one run, for the template."""
    details = {
        "folder": os.path.relpath(run.folder, place),
        "status": run.status,
        **({"error": run.error} if run.error else {}),
        "learned values": "" if run.parameters is None else f"{run.parameters:,}",
        "seconds": "" if run.seconds is None else f"{run.seconds:.1f}",
    }
    values = {name: value for name in run.value_names() if (value := run.get(name)) is not None}
    shots = f", {shots_phrase(run.shots)}" if run.shots else ""
    curves = read_curves(run.folder) if drawn else {}
    return {
        "id": f"run{number}",
        "title": f"{row.suite}, {row.method}{shots}, seed {run.seed}",
        "status": run.status,
        "details": {key: value for key, value in details.items() if value},
        "values": {name: f"{value:.2f}" for name, value in values.items()},
        "config": {key: str(value) for key, value in flat(read_config(run.folder)).items()},
        "mistakes": find_mistakes(run.folder) if drawn else [],
        "curve": _svg(draw_training, curves) if curves else "",
        "log": _log_tail(run.folder),
    }


def _log_tail(folder: Path) -> str:
    try:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_LINES:])
