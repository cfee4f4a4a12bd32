"""What is found by comparing runs: paired differences, base and new classes, gaps, collapses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from dassl.utils import unknown_name

from .aggregate import Row, Stat, aggregate, columns
from .read import OVERALL, Run

# Runs that differ in one of these do not measure the same thing.
SAME_MEASURE = ("backbone", "weights", "tasks", "classes", "metric_rule", "split")
NOT_FINITE = re.compile(r"\bloss\w* [-+]?(nan|inf)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Difference:
    """``method`` minus ``reference`` over the seeds that both have, in percentage points."""

    suite: str
    shots: int
    key: str
    method: str
    reference: str
    mean: float
    half: float | None  # half width of the 95 % interval; None for one seed
    n: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.half is not None and abs(self.mean) > self.half


def paired_differences(rows: Sequence[Row], reference: str = "") -> list[Difference]:
    """Differences between the methods of each suite and number of shots, seed by seed.

    The interval is Student's, for differences that are normal over seeds; it is not corrected for
    the number of comparisons. A method without shots stands against every number of shots.

    Args:
        reference: compare with this method only; "": every pair.

    Raises:
        UserError: no method has the reference's name.
    """
    names = list(dict.fromkeys(row.method for row in rows))
    if reference and reference not in names:
        raise unknown_name("method", reference, names)
    out = []
    for a, b in combinations(sorted(rows, key=lambda row: row.shots == 0), 2):
        if a.suite != b.suite or (a.shots != b.shots and b.shots != 0) or a.method == b.method:
            continue
        if not same_measure(a, b):
            continue
        if reference == a.method:
            a, b = b, a
        if reference in ("", b.method):
            shots = max(a.shots, b.shots, key=abs)
            out += [d for key in means_of([a, b]) if (d := _difference(a, b, key, shots))]
    return out


def same_measure(a: Row, b: Row) -> bool:
    """Whether the values of two rows may be compared."""
    if not a.runs or not b.runs:
        return False
    first, second = a.runs[0].variant, b.runs[0].variant
    return all(first.get(key) == second.get(key) for key in SAME_MEASURE)


def means_of(rows: Sequence[Row]) -> list[str]:
    """Keys of the means of a suite: the overall one, or one per group."""
    tasks = {name for row in rows for run in row.runs for name in run.tasks}
    return [key for key, _ in columns(rows) if key not in tasks]


def _difference(a: Row, b: Row, key: str, shots: int) -> Difference | None:
    ours, theirs = _by_seed(a, key), _by_seed(b, key)
    if b.shots == 0 and len(theirs) == 1:  # no seed changes it
        theirs = dict.fromkeys(ours, *theirs.values())
    if a.shots == 0 and len(ours) == 1:
        ours = dict.fromkeys(theirs, *ours.values())
    seeds = sorted(ours.keys() & theirs.keys(), key=str)
    if not seeds:
        return None
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    mean, half = mean_and_interval(differences)
    return Difference(a.suite, shots, key, a.method, b.method, mean, half, len(seeds))


def _by_seed(row: Row, key: str) -> dict[int | None, float]:
    return {run.seed: value for run in row.runs if (value := run.get(key)) is not None}


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of Student's 95 % confidence interval (None for one value)."""
    from scipy import stats

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(stats.t.ppf(0.975, n - 1)) * std / math.sqrt(n)


@dataclass(frozen=True)
class BaseNew:
    """A method that was trained on the base classes, tested on those and on the new ones."""

    suite: str
    base: Row
    new: Row

    def values(self, key: str) -> tuple[Stat, Stat, float | None]:
        """Base, new, and the harmonic mean H = 2 base new / (base + new) of the two means."""
        base, new = self.base.stat(key), self.new.stat(key)
        return base, new, harmonic_mean(base.mean, new.mean)


def harmonic_mean(a: float | None, b: float | None) -> float | None:
    """2ab / (a + b); 0 where both are."""
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b else 0.0


def base_and_new(runs: Sequence[Run], order: Sequence[str] = ()) -> list[BaseNew]:
    """The methods that have runs on the base classes and on the new ones."""
    sides = []
    for classes in ("base", "new"):
        rows = aggregate([run for run in runs if run.variant.get("classes") == classes], order)
        part = f", {classes} classes"
        places = {(row.suite.removesuffix(part), row.method, row.shots): row for row in rows}
        sides.append({place: row for place, row in places.items() if row.runs})
    base, new = sides
    return [BaseNew(place[0], row, new[place]) for place, row in base.items() if place in new]


def gaps(rows: Sequence[Row]) -> Iterator[str]:
    """What a full grid of the methods, shots and seeds that are there would have besides."""
    for suite in dict.fromkeys(row.suite for row in rows):
        members = [row for row in rows if row.suite == suite and row.shots != 0]
        seeds = {run.seed for row in members for run in row.runs}
        shots = {row.shots for row in members}
        for row in members:
            yield from _seeds_missing(row, seeds)
        for method in dict.fromkeys(row.method for row in members):
            have = {row.shots for row in members if row.method == method}
            for number in sorted(shots - have):
                yield f"{suite}, {method}: no run with {shots_words(number)}"


def _seeds_missing(row: Row, seeds: set) -> Iterator[str]:
    place = f"{row.suite}, {row.method}, {shots_words(row.shots)}"
    for run in row.unfinished:
        why = f" ({run.error})" if run.error else ""
        yield f"{place}, seed {run.seed}: {run.status}{why}, {run.folder}"
    known = {run.seed for run in (*row.runs, *row.unfinished)}
    for seed in sorted(seeds - known, key=str):
        yield f"{place}, seed {seed}: no run"
    for run in row.repeats:
        yield f"{place}, seed {run.seed}: {run.folder} repeats another run and is not counted"


def shots_words(number: int) -> str:
    """A number of shots in words."""
    return "all images" if number < 0 else f"{number} shot{'s'[: number != 1]}"


def collapsed(rows: Sequence[Row]) -> Iterator[str]:
    """Complete runs that look broken: worse than zero-shot, or a loss that was not finite."""
    zero_shot = [row for row in rows if row.shots == 0]
    for row in rows:
        base = next((z for z in zero_shot if z.suite == row.suite and same_measure(z, row)), None)
        for run in row.runs:
            reasons = [*_below(run, row, base), *_not_finite(run.folder)]
            if reasons:
                place = f"{row.suite}, {row.method}, {shots_words(row.shots)}, seed {run.seed}"
                yield f"{place}: {'; '.join(reasons)}"


def _below(run: Run, row: Row, zero_shot: Row | None) -> Iterator[str]:
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
