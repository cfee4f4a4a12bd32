"""Mean and spread over the seeds of an experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .read import OVERALL, Run


@dataclass(frozen=True)
class Stat:
    """Mean and spread of the ``n`` values that are there; None where there are too few."""

    mean: float | None
    spread: float | None
    n: int


def statistic(values: Iterable[float | None], sample: bool = False, ci95: bool = False) -> Stat:
    """Mean and standard deviation.

    Args:
        values: those that are None are left out.
        sample: divide by n - 1, not n; then one value has no spread.
        ci95: the half width of the normal 95 % confidence interval, 1.96 std / sqrt(n).
    """
    known = [v for v in values if v is not None]
    n = len(known)
    if not n:
        return Stat(None, None, 0)
    mean = math.fsum(known) / n
    if n == 1 and sample:
        return Stat(mean, None, 1)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (n - sample))
    return Stat(mean, 1.96 * std / math.sqrt(n) if ci95 else std, n)


@dataclass(frozen=True)
class Row:
    """The seeds of one method on one suite with one number of shots.

    ``suite`` names the part too whose values may be compared: the backbone, if there are several,
    and base or new classes.
    """

    suite: str
    method: str
    shots: int
    runs: tuple[Run, ...]  # complete
    unfinished: tuple[Run, ...] = field(default=())
    repeats: tuple[Run, ...] = field(default=())  # complete, but of a seed that is there already

    def stat(self, key: str, sample: bool = False) -> Stat:
        """Statistic of the value of that name; see :meth:`Run.get`."""
        values = [run.get(key) for run in self.runs]
        return statistic(values, sample)

    @property
    def seeds(self) -> str:
        """Number of seeds averaged, and of how many if some are unfinished."""
        done = len(self.runs)
        return f"{done} of {done + len(self.unfinished)}" if self.unfinished else str(done)


def aggregate(runs: Sequence[Run], order: Sequence[str] = ()) -> list[Row]:
    """Group runs into rows by suite, shots and method, in that order.

    Runs that differ in more than their seed (backbone, an option, ...) never share a row; the
    method's name then says in what they differ. Unfinished runs that stopped before they knew
    their method are left out. A seed counts once.

    Args:
        order: methods in the order of the rows; others follow by name.
    """
    groups: dict[tuple, list[Run]] = {}
    backbones: dict[str, set[str]] = {}
    for run in runs:
        backbones.setdefault(run.suite, set()).add(run.variant.get("backbone", ""))
    for run in sorted(runs, key=lambda run: not run.complete):  # stable: complete ones first
        if run.method:
            several = len(backbones[run.suite] - {""}) > 1
            groups.setdefault(_place(run, groups, several), []).append(run)
    told_apart = _differences(groups)
    rows = []
    for (suite, method, shots, variant), members in groups.items():
        keys = told_apart[suite, method]
        extra = ", ".join(f"{k} {v}" for k, v in variant if k in keys)
        by_seed: dict[int | None, Run] = {}
        for run in members:
            if run.complete:
                by_seed.setdefault(run.seed, run)
        counted = tuple(by_seed.values())
        rows.append(
            Row(
                suite=suite,
                method=f"{method} ({extra})" if extra else method,
                shots=shots,
                runs=counted,
                unfinished=tuple(run for run in members if not run.complete),
                repeats=tuple(run for run in members if run.complete and run not in counted),
            )
        )
    return sorted(rows, key=lambda row: _sort_key(row, list(order)))


def _place(run: Run, groups: Iterable[tuple], backbones: bool) -> tuple:
    """The key of a run's group; an unfinished one joins a group that it does not contradict."""
    parts = [run.suite]
    if backbones and run.variant.get("backbone"):
        parts.append(run.variant["backbone"])
    if run.variant.get("classes", "all") != "all":
        parts.append(f"{run.variant['classes']} classes")
    suite = ", ".join(parts)
    own = (suite, run.method, run.shots)
    if not run.complete:
        for key in groups:
            known = dict(key[3])
            part = key[0] == suite or (not run.variant and key[0].startswith(f"{suite}, "))
            if part and key[1:3] == own[1:] and run.variant.items() <= known.items():
                return key
    return (*own, tuple(sorted(run.variant.items())))


def _differences(groups: dict[tuple, list[Run]]) -> dict[tuple[str, str], set[str]]:
    """For each suite and method: keys in which runs with the same number of shots differ."""
    variants: dict[tuple, list[dict]] = {}
    for suite, method, shots, variant in groups:
        variants.setdefault((suite, method, shots), []).append(dict(variant))
    out: dict[tuple[str, str], set[str]] = {}
    for (suite, method, _), several in variants.items():
        keys = {key for variant in several for key in variant}
        differ = {key for key in keys if len({v.get(key) for v in several}) > 1}
        out.setdefault((suite, method), set()).update(differ)
    return out


def _sort_key(row: Row, order: list[str]) -> tuple:
    base = row.method.split(" (")[0]
    names = [row.method, base]
    place = next((order.index(name) for name in names if name in order), len(order))
    shots = math.inf if row.shots < 0 else row.shots
    return row.suite, shots, place, row.method.lower()


def columns(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Keys and titles of the values of one suite: the mean or each group's, then the tasks."""
    runs = [run for row in rows for run in row.runs]
    tasks = list(dict.fromkeys(name for run in runs for name in run.tasks))
    if len(tasks) == 1:
        return [(OVERALL, tasks[0])]
    means = [(OVERALL, "mean")]
    if any(run.grouped for run in runs):
        groups = dict.fromkeys(name for run in runs for name in run.groups)
        means = [(name, f"{name} (mean)") for name in groups]
    return [*means, *((name, name) for name in tasks)]
