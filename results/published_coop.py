"""Published results on CoOp's eleven datasets, base-to-new and few-shot, beside our own runs.

The two CSV files have a row per method and source. Papers print different numbers for one method,
so the tables show the range over the sources, and no difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .aggregate import Row, Stat
from .compare import BaseNew, harmonic_mean, row_name
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
    remarks,
    repeated,
    stat_cell,
)
from .published_sources import AVERAGE, SHOTS, Source, base_new_sources, few_shot_sources
from .published_transfer import TARGETS
from .read import OVERALL
from .rendering import Cell, Notes, Table
from .shots import shots_phrase

SETS = (
    "ImageNet",
    "Caltech101",
    "OxfordPets",
    "StanfordCars",
    "OxfordFlowers",
    "Food101",
    "FGVCAircraft",
    "SUN397",
    "DescribableTextures",
    "EuroSAT",
    "UCF101",
)
BASE_NEW_SHOTS = 16
SIDES = ("base", "new", "H")
# What must be so for a number to be comparable: the protocol's key, the published value.
MUST_MATCH = {
    "backbone": ("ViT-B/16",),
    "tasks": ("all",),
    "metric_rule": ("overall_acc",),
    "selection": SELECTIONS,
}
# Names of ours, as plain_name gives them -> published names, where these differ.
ALIASES = {
    "zeroshot": "clip",
    "coopca": "coop",
    "coopca+dept": "coop+dept",
    "lpclip": "lp",
    "ivlplanguageonly": "languageonly",
}
Values = Mapping[str, Stat]  # by column


@dataclass(frozen=True)
class Benchmark:
    """One of the two benchmarks on these datasets: columns, published numbers, our own.

    ours: values by dataset and method, in the order in which they are shown.
    names: the method of each of ours without the settings that may follow it in brackets.
    """

    title: str
    columns: tuple[str, ...]
    sources: tuple[Source, ...]
    ours: dict[tuple[str, str], Values]
    names: dict[str, str]


def published_on_sets(
    rows: Sequence[Row], pairs: Sequence[BaseNew], spread: str = "std"
) -> list[Table | Notes]:
    """Tables of our results beside the published ones, and notes on runs that do not match.

    Args:
        rows: of runs on all classes. pairs: of runs on base and on new classes.
        spread: what follows ±, one of SPREADS.
    """
    on_sets = [p for p in pairs if _concerns_sets(p.base) and p.base.shots in (0, BASE_NEW_SHOTS)]
    all_classes = [r for r in rows if r.runs and _concerns_sets(r) and _classes(r) == "all"]
    sides = [side for pair in on_sets for side in (pair.base, pair.new)]
    notes = [line for row in (*sides, *all_classes) for line in _remarks(row)]
    on_sets = [
        BaseNew(_dataset(base), base, new)
        for p in sorted(on_sets, key=lambda pair: _dataset(pair.base) == SUITE)
        if not (_why_not(p.base, "base") or _why_not(p.new, "new"))
        for base, new in zip(by_dataset(p.base), by_dataset(p.new), strict=True)
    ]
    all_classes = [
        part
        for row in own_runs_first(all_classes)
        if not _why_not(row, "all")
        for part in by_dataset(row)
    ]
    notes += repeated((_dataset(pair.base), pair.base.method) for pair in on_sets)
    notes += repeated((_dataset(r), f"{r.method}, {shots_phrase(r.shots)}") for r in all_classes)
    names = {r.method: r.runs[0].method for r in (*all_classes, *(p.base for p in on_sets))}
    benchmarks = (
        Benchmark(
            f"Base to new at {BASE_NEW_SHOTS} shots on CoOp's datasets",
            SIDES,
            base_new_sources(),
            _ours_base_new(on_sets, spread),
            names,
        ),
        Benchmark(
            "Few-shot on CoOp's datasets",
            SHOTS,
            few_shot_sources(),
            _ours_few_shot(all_classes),
            names,
        ),
    )
    tables = [_table(benchmark) for benchmark in benchmarks if benchmark.ours]
    title = "Published numbers on CoOp's datasets: differences and unknowns"
    return [*tables, *([Notes(title, tuple(dict.fromkeys(notes)))] if notes else [])]


def _concerns_sets(row: Row) -> bool:
    """Whether a row is on one of the datasets, or comparable on all of General-10's.

    Rows of the protocols in :mod:`results.published_transfer` have a table there.
    """
    if row.runs[0].settings.get("name") in TARGETS:
        return False
    if _dataset(row) != SUITE or len(row.runs[0].tasks) != len(GENERAL10):
        return _dataset(row) in SETS
    known = {plain_name(source.method) for source in (*base_new_sources(), *few_shot_sources())}
    published = published_name(row.runs[0].method, ALIASES) in known
    return published and not _why_not(row, _classes(row))


def _dataset(row: Row) -> str:
    return row.runs[0].suite


def _classes(row: Row) -> str:
    return row.runs[0].settings.get("classes", "all")


def _why_not(row: Row, classes: str) -> list[str]:
    run = row.runs[0]
    run = replace(run, settings={**run.settings, "classes": _classes(row)})
    return list(mismatches(run, {**MUST_MATCH, "classes": (classes,)}))


def _remarks(row: Row) -> list[str]:
    differs = differences(row)
    split = row.runs[0].settings.get("split", "zhou")
    if split != "zhou":
        differs.append(f"split {split} (published: zhou)")
    name = row_name(row, _dataset(row))
    return remarks(name, _why_not(row, _classes(row)), differs)


def _ours_base_new(pairs: Sequence[BaseNew], spread: str) -> dict[tuple[str, str], Values]:
    found: dict[tuple[str, str], Values] = {}
    for pair in sorted(pairs, key=lambda pair: SETS.index(_dataset(pair.base))):
        sides = pair.base.stat(OVERALL, spread), pair.new.stat(OVERALL, spread)
        found.setdefault((_dataset(pair.base), pair.base.method), _with_h(*sides))
    for method in dict.fromkeys(method for _, method in found):
        members = [found.get((name, method)) for name in SETS]
        base, new = _average(members, "base"), _average(members, "new")
        if base and new:
            found[AVERAGE, method] = _with_h(base, new)
    return found


def _with_h(base: Stat, new: Stat) -> Values:
    return {"base": base, "new": new, "H": Stat(harmonic_mean(base.mean, new.mean), None, 1)}


def _ours_few_shot(rows: Sequence[Row]) -> dict[tuple[str, str], Values]:
    """Averages of the methods that have a row on each of the eleven datasets."""
    by_place = {(_dataset(row), row.method, row.shots): row for row in reversed(rows)}
    found: dict[tuple[str, str], Values] = {}
    for method in dict.fromkeys(row.method for row in rows):
        values = {}
        for shots in SHOTS:
            members = [by_place.get((name, method, int(shots))) for name in SETS]
            parts = [{shots: row.stat(OVERALL)} if row else None for row in members]
            if average := _average(parts, shots):
                values[shots] = average
        if values:
            found[AVERAGE, method] = values
    return found


def _average(members: Sequence[Values | None], column: str) -> Stat | None:
    """The mean over all datasets; None if one is missing."""
    stats = [values[column] for values in members if values]
    means = [stat.mean for stat in stats if stat.mean is not None]
    if len(means) < len(SETS):
        return None
    return Stat(math.fsum(means) / len(means), None, min(stat.n for stat in stats))


def _table(benchmark: Benchmark) -> Table:
    body: list[tuple[Cell, ...]] = []
    datasets = dict.fromkeys(dataset for dataset, _ in benchmark.ours)
    for dataset in datasets:
        known = _by_method(benchmark.sources, dataset)
        shown = set()
        for name, values in ((m, v) for (d, m), v in benchmark.ours.items() if d == dataset):
            cells = [stat_cell(values.get(column)) for column in benchmark.columns]
            body.append((Cell(dataset), Cell(name), Cell("ours"), *cells))
            key = published_name(benchmark.names[name], ALIASES)
            if key in known:
                body.append(_published_row(dataset, known[key], benchmark.columns))
                shown.add(key)
        if dataset == AVERAGE:  # methods that we have not run, transductive ones last
            others = [sources for key, sources in known.items() if key not in shown]
            others.sort(key=lambda sources: sources[0].transductive)  # stable
            body += [_published_row(dataset, sources, benchmark.columns) for sources in others]
    return Table(
        title=f"{benchmark.title}, beside published numbers: accuracy in %, mean ± std over seeds",
        head=("dataset", "method", "numbers", *benchmark.columns),
        rows=tuple(body),
        keys=3,
        breaks=0,
        notes=(
            "published: the range over sources that print different numbers for a method; each "
            "source is named in results/published_base_to_new.csv and published_few_shot.csv",
            "transductive: trained on unlabelled images of the tested classes; not to be compared "
            "with the others",
        ),
    )


def _by_method(sources: Sequence[Source], dataset: str) -> dict[str, list[Source]]:
    found: dict[str, list[Source]] = {}
    for source in sources:
        if source.dataset == dataset:
            found.setdefault(plain_name(source.method), []).append(source)
    return found


def _published_row(dataset: str, sources: list[Source], columns: Sequence[str]) -> tuple[Cell, ...]:
    count = len({source.source for source in sources})
    numbers = "published" if count == 1 else f"published, {count} sources"
    name = sources[0].method + (" (transductive)" if sources[0].transductive else "")
    ranges = [_range([s.values[column] for s in sources]) for column in columns]
    return Cell(dataset), Cell(name), Cell(numbers), *ranges


def _range(values: Sequence[float]) -> Cell:
    low, high = min(values), max(values)
    text = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    return Cell(text, sum(values) / len(values), n=len(values))
