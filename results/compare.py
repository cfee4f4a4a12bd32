"""Compares rows: paired differences, base and new classes, missing and suspicious runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from dassl.utils import unknown_name

from .aggregate import Row, Stat, aggregate, columns, mean_and_interval
from .read import OVERALL, Run
from .shots import shots_phrase

# Settings that rows must share for their values to be compared.
SAME_MEASURE = ("backbone", "weights", "tasks", "classes", "metric_rule", "split")
NOT_FINITE = re.compile(r"\bloss\w* [-+]?(nan|inf)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Difference:
    """``method`` minus ``reference`` over the ``n`` seeds that both have, in percentage points.

    Args:
        key: the value compared, as in :meth:`Run.get`.
        half_width: of the 95 % confidence interval; None for a single seed.
    """

    suite: str
    shots: int
    key: str
    method: str
    reference: str
    mean: float
    half_width: float | None
    n: int

    @property
    def significant(self) -> bool:
        """Whether the confidence interval excludes 0."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def paired_differences(rows: Sequence[Row], reference: str = "") -> list[Difference]:
    """Differences between the methods of each suite and number of shots, seed by seed.

    The interval is Student's, for differences that are normal over seeds; it is not corrected for
    the number of comparisons. A method that uses no training images is compared with the others
    at every number of shots.

    Args:
        reference: compare with this method only; "" compares every pair.

    Raises:
        UserError: no method has the name ``reference``.
    """
    out = []
    for a, b, shots in comparable_rows(rows, reference):
        out += [d for key in means_of([a, b]) if (d := _difference(a, b, key, shots))]
    return out


def comparable_rows(rows: Sequence[Row], reference: str = "") -> Iterator[tuple[Row, Row, int]]:
    """Pairs of methods measured alike, and their shots; the second is the one compared with.

    Args:
        reference: as in :func:`paired_differences`.

    Raises:
        UserError: no method has the name ``reference``.
    """
    names = list(dict.fromkeys(row.method for row in rows))
    if reference and reference not in names:
        raise unknown_name("method", reference, names)
    for a, b in combinations(sorted(rows, key=lambda row: row.shots == 0), 2):
        if a.suite != b.suite or (a.shots != b.shots and b.shots != 0) or a.method == b.method:
            continue
        if not same_measure(a, b):
            continue
        if reference == a.method:
            a, b = b, a
        if reference in ("", b.method):
            yield a, b, max(a.shots, b.shots, key=abs)


def same_measure(a: Row, b: Row) -> bool:
    """Whether the values of two rows may be compared."""
    if not a.runs or not b.runs:
        return False
    first, second = a.runs[0].settings, b.runs[0].settings
    return all(first.get(key) == second.get(key) for key in SAME_MEASURE)


def means_of(rows: Sequence[Row]) -> list[str]:
    """Keys of a suite's means: the overall one, or one per group."""
    tasks = {name for row in rows for run in row.runs for name in run.tasks}
    return [key for key, _ in columns(rows) if key not in tasks]


def runs_of_same_seed(a: Row, b: Row) -> list[tuple[Run, Run]]:
    """The runs of two rows by seed; a single zero-shot run is that of every seed."""
    ours = {run.seed: run for run in a.runs}
    theirs = {run.seed: run for run in b.runs}
    if b.shots == 0 and len(theirs) == 1:
        theirs = dict.fromkeys(ours, *theirs.values())
    if a.shots == 0 and len(ours) == 1:
        ours = dict.fromkeys(theirs, *ours.values())
    return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys(), key=str)]


def _difference(a: Row, b: Row, key: str, shots: int) -> Difference | None:
    values = [(x.get(key), y.get(key)) for x, y in runs_of_same_seed(a, b)]
    differences = [x - y for x, y in values if x is not None and y is not None]
    if not differences:
        return None
    mean, half_width = mean_and_interval(differences)
    return Difference(a.suite, shots, key, a.method, b.method, mean, half_width, len(differences))


@dataclass(frozen=True)
class BaseNew:
    """A method trained on the base classes and tested on the base and on the new classes."""

    suite: str
    base: Row
    new: Row

    def values(self, key: str) -> tuple[Stat, Stat, float | None]:
        """Base, new, and the harmonic mean H = 2 base new / (base + new) of the two means."""
        base, new = self.base.stat(key), self.new.stat(key)
        return base, new, harmonic_mean(base.mean, new.mean)


def harmonic_mean(a: float | None, b: float | None) -> float | None:
    """2ab / (a + b); 0 if both are 0, None if one is None."""
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b else 0.0


def base_and_new(runs: Sequence[Run], order: Sequence[str] = ()) -> list[BaseNew]:
    """The methods with complete runs on both the base and the new classes."""
    sides = []
    for classes in ("base", "new"):
        rows = aggregate([run for run in runs if run.settings.get("classes") == classes], order)
        suffix = f", {classes} classes"
        by_key = {(row.suite.removesuffix(suffix), row.method, row.shots): row for row in rows}
        sides.append({key: row for key, row in by_key.items() if row.runs})
    base, new = sides
    return [BaseNew(key[0], row, new[key]) for key, row in base.items() if key in new]


def missing_runs(rows: Sequence[Row]) -> Iterator[str]:
    """Lines on the runs that a full grid of these methods, shots and seeds lacks."""
    for suite in dict.fromkeys(row.suite for row in rows):
        members = [row for row in rows if row.suite == suite and row.shots != 0]
        seeds = {run.seed for row in members for run in row.runs}
        shots = {row.shots for row in members}
        for row in members:
            yield from _missing_seeds(row, seeds)
        for method in dict.fromkeys(row.method for row in members):
            present = {row.shots for row in members if row.method == method}
            for number in sorted(shots - present):
                yield f"{suite}, {method}: no run with {shots_phrase(number)}"


def _missing_seeds(row: Row, seeds: set) -> Iterator[str]:
    where = row_name(row)
    for run in row.unfinished:
        why = f" ({run.error})" if run.error else ""
        yield f"{where}, seed {run.seed}: {run.status}{why}, {run.folder}"
    known = {run.seed for run in (*row.runs, *row.unfinished)}
    for seed in sorted(seeds - known, key=str):
        yield f"{where}, seed {seed}: no run"
    for run in row.repeats:
        yield f"{where}, seed {run.seed}: {run.folder} repeats another run and is not counted"


def row_name(row: Row, suite: str = "") -> str:
    """A row in a sentence: ``Trees, CoOp, 4 shots``.

    Args:
        suite: instead of the row's, which says when only some classes are tested.
    """
    return f"{suite or row.suite}, {row.method}, {shots_phrase(row.shots)}"


def suspicious_runs(rows: Sequence[Row]) -> Iterator[str]:
    """Lines on complete runs that may have collapsed: below zero-shot, or a loss of nan or inf."""
    zero_shot = [row for row in rows if row.shots == 0]
    for row in rows:
        base = next((z for z in zero_shot if z.suite == row.suite and same_measure(z, row)), None)
        for run in row.runs:
            reasons = [*_below_zero_shot(run, row, base), *_not_finite(run.folder)]
            if reasons:
                yield f"{row_name(row)}, seed {run.seed}: {'; '.join(reasons)}"


def _below_zero_shot(run: Run, row: Row, zero_shot: Row | None) -> Iterator[str]:
    if zero_shot is None or row.shots == 0:
        return
    for key in means_of([zero_shot]):
        ours, theirs = run.get(key), zero_shot.stat(key).mean
        if ours is not None and theirs is not None and ours < theirs:
            name = "" if key == OVERALL else f" in {key}"
            yield f"below zero-shot{name} ({ours:.1f} < {theirs:.1f})"


def _not_finite(folder: Path) -> Iterator[str]:
    try:
        with (folder / "log.txt").open(encoding="utf-8", errors="replace") as lines:
            if any(NOT_FINITE.search(line) for line in lines):
                yield "its log shows a loss that is not finite"
    except OSError:
        return
