"""Groups runs into rows of seeds, and computes mean and spread over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dassl.utils import shorten_list

from .read import OVERALL, WITHOUT_TASK, Run
from .shots import shots_order

# What follows ± in tables, in words.
SPREADS = {
    "std": "std over seeds",
    "sample": "std over seeds (n − 1)",
    "interval": "half of Student's 95 % interval over seeds",
}
SPLIT = "TEST.SPLIT"  # the images that were evaluated
GroupKey = tuple[str, str, int, tuple[tuple[str, str], ...]]  # suite, method, shots, settings


@dataclass(frozen=True)
class Stat:
    """Mean and spread of ``n`` values; None if there are too few."""

    mean: float | None
    spread: float | None
    n: int


def statistic(values: Iterable[float | None], spread: str = "std", ci95: bool = False) -> Stat:
    """Mean and spread.

    Args:
        values: None is skipped.
        spread: one of SPREADS. A single value has a spread of 0 with std, of None otherwise.
        ci95: with a standard deviation: half the width of the normal 95 % confidence interval,
            1.96 std / sqrt(n), instead of it.
    """
    known = [v for v in values if v is not None]
    n = len(known)
    if not n:
        return Stat(None, None, 0)
    if spread == "interval":
        return Stat(*mean_and_interval(known), n)
    mean = math.fsum(known) / n
    if n == 1 and spread == "sample":
        return Stat(mean, None, 1)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (n - (spread == "sample")))
    return Stat(mean, 1.96 * std / math.sqrt(n) if ci95 else std, n)


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
class Row:
    """The seeds of one method on one suite with one number of shots.

    Args:
        suite: values of equal ``suite`` may be compared; besides the suite it names the backbone,
            if the runs have several, base or new classes, and validation images.
        method: followed by the settings that distinguish it from other rows, in brackets.
        runs: the complete ones, one per seed.
        unfinished: those that are not complete.
        repeats: complete runs of a seed that ``runs`` already holds.
    """

    suite: str
    method: str
    shots: int
    runs: tuple[Run, ...]
    unfinished: tuple[Run, ...] = ()
    repeats: tuple[Run, ...] = ()

    def stat(self, key: str, spread: str = "std") -> Stat:
        """Mean and spread over the seeds of a value; ``key`` as in :meth:`Run.get`."""
        return statistic([run.get(key) for run in self.runs], spread)

    @property
    def tasks(self) -> set[str]:
        """Names of the tasks that its runs evaluated."""
        return {name for run in self.runs for name in run.tasks}

    @property
    def seeds(self) -> str:
        """Number of complete seeds, such as ``3``, or ``2 of 3`` if one is unfinished."""
        complete = len(self.runs)
        total = complete + len(self.unfinished)
        return f"{complete} of {total}" if self.unfinished else str(complete)


def aggregate(runs: Sequence[Run], order: Sequence[str] = ()) -> list[Row]:
    """Group runs into rows by suite, shots and method, in that order.

    Runs that differ in any setting but the seed never share a row; the rows' methods then name
    the settings in which they differ. Unfinished runs that failed before their method was
    recorded are left out. A seed counts once.

    Args:
        order: methods in the order of the rows; others follow by name.
    """
    groups = _group(runs)
    distinguishing = distinguishing_keys(groups)
    rows = [_make_row(key, members, distinguishing[key[:2]]) for key, members in groups.items()]
    return sorted(rows, key=lambda row: _sort_key(row, list(order)))


def _group(runs: Sequence[Run]) -> dict[GroupKey, list[Run]]:
    """Runs by suite, method, shots and settings; complete runs come first in each group."""
    backbones: dict[str, set[str]] = {}
    labels = _suite_labels(runs)
    for run in runs:
        backbones.setdefault(run.suite, set()).add(run.settings.get("backbone", ""))
    groups: dict[GroupKey, list[Run]] = {}
    for run in sorted(runs, key=lambda run: not run.complete):  # stable
        if run.method:
            several_backbones = len(backbones[run.suite] - {""}) > 1
            label = labels.get(_data_key(run), _label(run.suite, run.test_subset))
            groups.setdefault(_group_key(run, label, groups, several_backbones), []).append(run)
    return groups


def _data_key(run: Run) -> tuple[str, ...]:
    """Suite, part of it, and identity of the data: their hash, or else the names of the tasks."""
    part = (
        run.test_subset,
        run.settings.get("classes", "all"),
        run.settings.get("tasks", "all"),
        run.settings.get(SPLIT, "test"),
    )
    return (run.suite, *part, run.settings.get("data") or ", ".join(run.tasks))


def _suite_labels(runs: Sequence[Run]) -> dict[tuple[str, ...], str]:
    """The name in tables of every suite and data identity.

    A suite that was run on one data identity keeps its name; otherwise the names of the tasks
    follow, and where these are equal too, the hash of the data. The number of test items follows
    where it is not that of the full test split.
    """
    tasks = {_data_key(run): shorten_list(run.tasks) for run in runs if run.complete}
    hashed = {_data_key(run) for run in runs if run.settings.get("data")}
    labels = {}
    for key, names in tasks.items():
        rivals = [other for other in tasks if other[:-1] == key[:-1]]
        alike = [other for other in rivals if tasks[other] == names]
        named = [names] if names and len(rivals) > 1 else []
        if len(alike) > 1 or (len(rivals) > 1 and not names):
            named.append(f"data {key[-1]}" if key in hashed else "data not recorded")
        suite, test_subset, *_ = key
        labels[key] = _label(suite, *named, test_subset)
    return labels


def _label(suite: str, *remarks: str) -> str:
    """The suite, with the remarks that are not empty in brackets."""
    shown = ", ".join(filter(None, remarks))
    return f"{suite} ({shown})" if shown else suite


def _group_key(
    run: Run, label: str, groups: Iterable[GroupKey], several_backbones: bool
) -> GroupKey:
    """The group of a run; an unfinished one joins a group that agrees in all it recorded."""
    parts = [label]
    if several_backbones and run.settings.get("backbone"):
        parts.append(run.settings["backbone"])
    if run.settings.get("classes", "all") != "all":
        parts.append(f"{run.settings['classes']} classes")
    if run.settings.get(SPLIT, "test") == "val":
        parts.append("validation images")
    suite = ", ".join(parts)
    if not run.complete:
        for key in groups:
            same_suite = key[0] == suite or (
                "data" not in run.settings
                and key[0].startswith((f"{run.suite}, ", f"{run.suite} ("))
                and (not run.settings or "data" in dict(key[3]))
            )
            same_method = key[1:3] == (run.method, run.shots)
            if same_suite and same_method and run.settings.items() <= dict(key[3]).items():
                return key
    return (suite, run.method, run.shots, tuple(sorted(run.settings.items())))


def distinguishing_keys(groups: Iterable[GroupKey]) -> dict[tuple[str, str], set[str]]:
    """For each suite and method: settings in which groups with the same shots differ.

    The tasks of a method that was run on others than other methods of the suite are one of them.
    """
    settings: dict[tuple[str, str, int], list[dict]] = {}
    tasks: dict[str, set[str]] = {}
    for suite, method, shots, items in groups:
        settings.setdefault((suite, method, shots), []).append(dict(items))
        tasks.setdefault(suite, set()).add(dict(items).get("tasks", "all"))
    distinguishing: dict[tuple[str, str], set[str]] = {}
    for (suite, method, _), candidates in settings.items():
        keys = {key for candidate in candidates for key in candidate}
        differing = {key for key in keys if len({c.get(key) for c in candidates}) > 1}
        if len(tasks[suite]) > 1 and any(c.get("tasks", "all") != "all" for c in candidates):
            differing.add("tasks")
        distinguishing.setdefault((suite, method), set()).update(differing)
    return distinguishing


def name_method(key: GroupKey, distinguishing: set[str]) -> str:
    """The method of a group, followed by the distinguishing settings in brackets."""
    named = ", ".join(f"{k} {v}" for k, v in key[3] if k in distinguishing)
    return f"{key[1]} ({named})" if named else key[1]


def _make_row(key: GroupKey, members: list[Run], distinguishing: set[str]) -> Row:
    by_seed: dict[int | None, Run] = {}
    for run in members:
        if run.complete:
            by_seed.setdefault(run.seed, run)
    counted = tuple(by_seed.values())
    return Row(
        suite=key[0],
        method=name_method(key, distinguishing),
        shots=key[2],
        runs=counted,
        unfinished=tuple(run for run in members if not run.complete),
        repeats=tuple(run for run in members if run.complete and run not in counted),
    )


def _sort_key(row: Row, order: list[str]) -> tuple:
    names = (row.method, row.method.split(" (")[0])
    position = next((order.index(name) for name in names if name in order), len(order))
    return row.suite, shots_order(row.shots), position, row.method.lower()


def columns(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Keys and titles of a suite's values: the mean, or that of each group, then the tasks.

    Where an evaluation was not told the tasks, its means come last.
    """
    runs = [run for row in rows for run in row.runs]
    tasks = list(dict.fromkeys(name for run in runs for name in run.tasks))
    if len(tasks) == 1:
        return [(OVERALL, tasks[0])]
    means = [(OVERALL, "mean")]
    if any(run.grouped for run in runs):
        groups = dict.fromkeys(name for run in runs for name in run.groups)
        means = [(name, f"{name} (mean)") for name in groups]
    without = [
        (key, WITHOUT_TASK[key]) for key in WITHOUT_TASK if any(key in r.extra for r in runs)
    ]
    return [*means, *((name, name) for name in tasks), *without]


def measure_columns(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Keys and titles of what is measured of a suite's tasks beside their metric."""
    names = dict.fromkeys(name for row in rows for run in row.runs for name in run.measures)
    return [(name, name) for name in names]
