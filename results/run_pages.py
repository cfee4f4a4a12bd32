"""What an HTML report shows of each run: results, mistakes, training curves, end of its log."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dassl.metrics import BINS
from dassl.utils import flat

from .aggregate import Row
from .embedded import Thumbnails, figure_source
from .figures import draw_training
from .mistakes import SHOWN, TaskMistakes, find_mistakes
from .read import Run
from .settings import read_config
from .shots import shots_order, shots_phrase
from .training_curves import read_curves

LOG_LINES = 40
DRAWN = 200  # runs whose curves and mistakes are shown beside INSPECTED: each takes 50 kB
INSPECTED = 40  # runs whose confusions and most confident mistakes are shown
THUMBNAIL_BYTES = 4_000_000  # of all thumbnails together
USUAL_THUMBNAIL = 3_000  # bytes of one


def run_pages(rows: Sequence[Row], place: Path, root: str = "") -> list[dict[str, Any]]:
    """The content of the page of every run, for the template.

    One run per method is inspected task by task: the first seed at the largest number of shots.

    Args:
        place: the folder of the report, which paths are relative to.
        root: folder of the datasets; "": the one of each run's configuration.
    """
    runs = [(run, row) for row in rows for run in (*row.runs, *row.unfinished, *row.repeats)]
    inspected = _inspected(rows)
    ids = {str(run.folder): f"run{i}" for i, (run, _) in enumerate(runs)}
    drawn = {str(run.folder) for run, _ in runs[:DRAWN]} | set(inspected.values())
    found = {folder: find_mistakes(Path(folder)) for folder in drawn}
    tasks = sum(len(found.get(folder, ())) for folder in inspected.values())
    shown = max(1, min(SHOWN, THUMBNAIL_BYTES // (USUAL_THUMBNAIL * max(1, tasks))))
    thumbnails = Thumbnails(THUMBNAIL_BYTES)
    pages = []
    for run, row in runs:
        folder = str(run.folder)
        page = _page(run, row, place, folder in drawn)
        page["id"] = ids[folder]
        page["tasks"] = found.get(folder, [])
        chosen = inspected.get(_method_key(row), "")
        page["inspected_at"] = ids.get(chosen, "") if chosen != folder else ""
        page["inside"] = []
        if chosen == folder:
            home = Path(root or read_config(run.folder).get("DATASET", {}).get("ROOT") or ".")
            page["inside"] = [_inside(task, home, thumbnails, shown) for task in page["tasks"]]
        pages.append(page)
    return pages


def _method_key(row: Row) -> tuple[str, str]:
    return row.suite, row.method


def _inspected(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """By suite and method, the folder of the run that is inspected."""
    largest: dict[tuple[str, str], Row] = {}
    for row in rows:
        before = largest.get(_method_key(row))
        if row.runs and (not before or shots_order(row.shots) > shots_order(before.shots)):
            largest[_method_key(row)] = row
    chosen = {key: str(row.runs[0].folder) for key, row in largest.items()}
    return dict(list(chosen.items())[:INSPECTED])


def _page(run: Run, row: Row, place: Path, drawn: bool) -> dict[str, Any]:
    """The details of one run."""
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
        "title": f"{row.suite}, {row.method}{shots}, seed {run.seed}",
        "status": run.status,
        "details": {key: value for key, value in details.items() if value},
        "values": {name: f"{value:.2f}" for name, value in values.items()},
        "config": {key: str(value) for key, value in flat(read_config(run.folder)).items()},
        "curve": figure_source(draw_training, curves) if curves else "",
        "log": _log_tail(run.folder),
    }


def _log_tail(folder: Path) -> str:
    try:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_LINES:])


def _inside(task: TaskMistakes, root: Path, thumbnails: Thumbnails, shown: int) -> dict[str, Any]:
    """One task of an inspected run."""
    missing = thumbnails.missing
    pictures = []
    for i, one in enumerate(task.confident):
        file = one.file if i < shown else None
        source = thumbnails.embed(root.expanduser() / file) if file else ""
        pictures.append({"source": source, "mistake": one})
    return {
        "task": task,
        "pictures": [one for one in pictures if one["source"]],
        "names": [one["mistake"] for one in pictures if not one["source"]],
        "not_found": thumbnails.missing > missing,
        "not_recorded": any(one.file is None for one in task.confident),
        "matrix": list(_shaded(task)),
        "bins": [
            {"place": min(int(one.probability * BINS), BINS - 1), **vars(one)}
            for one in task.calibration.bins
        ],
    }


def _shaded(task: TaskMistakes) -> Iterator[dict[str, Any]]:
    """The rows of the confusion matrix; each cell has a shade from 0 to 9, its share of the row."""
    if task.matrix is None:
        return
    for i, (name, counts) in enumerate(zip(task.matrix.names, task.matrix.counts, strict=True)):
        total = max(1, sum(counts))
        cells = [
            {"count": n, "shade": f"{'right' if i == j else 'wrong'}{_shade(n / total)}"}
            for j, n in enumerate(counts)
        ]
        yield {"name": name, "cells": cells}


def _shade(share: float) -> int:
    """0 for none; small shares are still seen."""
    return 0 if share == 0 else max(1, min(9, round(9 * share**0.5)))
