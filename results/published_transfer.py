"""Published results of models trained on ImageNet and tested elsewhere, beside our own runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from .aggregate import Row, Stat
from .published import (
    GENERAL10,
    SELECTIONS,
    SUITE,
    by_dataset,
    differences,
    mismatches,
    own_runs_first,
    plain_name,
    published_name,
    read_shipped,
    remarks,
    repeated,
    stat_cell,
)
from .read import OVERALL
from .rendering import Cell, Notes, Table

SOURCE, SHOTS, AVERAGE = "ImageNet", 16, "average"
# The datasets of each protocol that a model is tested on; the average is over them.
TARGETS = {
    "cross_dataset": GENERAL10,
    "domain_generalization": ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"),
}
TITLES = {
    "cross_dataset": "Cross-dataset from ImageNet",
    "domain_generalization": "Domain generalization from ImageNet",
}
MUST_MATCH = {
    "backbone": ("ViT-B/16",),
    "tasks": ("all",),
    "classes": ("all",),
    "metric_rule": ("overall_acc",),
    "selection": SELECTIONS,
}
ALIASES = {"coopca": "coop"}  # our plain name -> the published one, where they differ


@cache
def transfer_sources() -> dict[str, dict[str, dict[str, float]]]:
    """The published accuracies as shipped, by protocol, method and dataset."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for line in read_shipped("published_transfer.csv"):
        name = line["method"] + (" (transductive)" if line["transductive"] == "yes" else "")
        methods = found.setdefault(line["protocol"], {})
        methods.setdefault(name, {})[line["dataset"]] = float(line["accuracy"])
    return found


def published_transfer(rows: Sequence[Row], spread: str = "std") -> list[Table | Notes]:
    """A table for each protocol of which there are runs, and notes on what differs."""
    parts: list[Table | Notes] = []
    notes: list[str] = []
    for protocol in TARGETS:
        members = [row for row in rows if row.runs and _concerns(row, protocol)]
        notes += [line for row in members for line in _remarks(row, protocol)]
        members = [row for row in members if not _why_not(row, protocol)]
        if members:
            parts.append(_table(protocol, members, spread))
    title = "Published numbers of models trained on ImageNet: differences and unknowns"
    return [*parts, *([Notes(title, tuple(dict.fromkeys(notes)))] if notes else [])]


def _concerns(row: Row, protocol: str) -> bool:
    run = row.runs[0]
    places = (SOURCE, *TARGETS[protocol], SUITE if protocol == "cross_dataset" else "")
    return run.settings.get("name") == protocol and row.shots == SHOTS and run.suite in places


def _why_not(row: Row, protocol: str) -> list[str]:
    run = row.runs[0]
    trained = {} if run.suite == SOURCE else {"trained_on": (SOURCE,)}
    return list(mismatches(run, {**MUST_MATCH, "name": (protocol,), **trained}))


def _remarks(row: Row, protocol: str) -> list[str]:
    name = f"{row.runs[0].suite}, {row.method}"
    return remarks(name, _why_not(row, protocol), differences(row))


def _table(protocol: str, rows: Sequence[Row], spread: str) -> Table:
    columns = (SOURCE, *TARGETS[protocol], AVERAGE)
    ours: dict[str, dict[str, Stat]] = {}
    parts = [part for row in own_runs_first(rows) for part in by_dataset(row)]
    names = _names(parts)
    for part in parts:
        places = ours.setdefault(names[_model(part)], {})
        places.setdefault(part.runs[0].suite, part.stat(OVERALL, spread))
    methods = {name: model[0] for model, name in names.items()}
    body = list(_body(protocol, ours, methods, columns))
    return Table(
        title=f"{TITLES[protocol]} at {SHOTS} shots, beside published numbers: accuracy in %, "
        "mean ± std over seeds",
        head=("method", "numbers", *columns),
        rows=tuple(body),
        keys=2,
        breaks=0,
        notes=(
            f"average: over the {len(TARGETS[protocol])} datasets that are not trained on; each "
            "published number's source is named in results/published_transfer.csv",
            *repeated((part.runs[0].suite, names[_model(part)]) for part in parts),
        ),
    )


def _model(row: Row) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The method of a row and its options, which all results of one model share."""
    run = row.runs[0]
    options = ((key, value) for key, value in run.settings.items() if key.isupper())
    return run.method, tuple(sorted((key, value) for key, value in options if "." not in key))


def _names(rows: Sequence[Row]) -> dict[tuple[str, tuple[tuple[str, str], ...]], str]:
    """The name in the table of each model: the method, and the options in which models differ."""
    models = dict.fromkeys(map(_model, rows))
    found = {}
    for method, options in models:
        others = [set(other) for name, other in models if name == method]
        own = [f"{k} {v}" for k, v in options if not all((k, v) in other for other in others)]
        found[method, options] = f"{method} ({', '.join(own)})" if own else method
    return found


def _body(
    protocol: str,
    ours: Mapping[str, dict[str, Stat]],
    names: Mapping[str, str],
    columns: Sequence[str],
) -> Iterator[tuple[Cell, ...]]:
    """Each of our methods with the published one, then the published ones that were not run."""
    known = dict(transfer_sources()[protocol])
    for method, values in ours.items():
        tested = [values[name] for name in TARGETS[protocol] if name in values]
        means = [stat.mean for stat in tested if stat.mean is not None]
        if len(means) == len(TARGETS[protocol]):
            count = min(stat.n for stat in tested)
            values[AVERAGE] = Stat(math.fsum(means) / len(means), None, count)
        cells = [stat_cell(values.get(column)) for column in columns]
        yield Cell(method), Cell("ours"), *cells
        wanted = published_name(names[method], ALIASES)
        if name := next((name for name in known if plain_name(name) == wanted), None):
            yield _published(name, known.pop(name), columns)
    for name, numbers in known.items():
        yield _published(name, numbers, columns)


def _published(name: str, numbers: Mapping[str, float], columns: Sequence[str]) -> tuple[Cell, ...]:
    stats = [Stat(numbers[c], None, 1) if c in numbers else None for c in columns]
    return Cell(name), Cell("published"), *map(stat_cell, stats)
