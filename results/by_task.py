"""Values of runs on parts of a suite, by task and seed, and the names of rows that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .aggregate import GroupKey, distinguishing_keys, mean_and_interval, name_method
from .read import Run
from .rendering import Cell
from .tables import signed

BySeed = dict[int | None, float]
ByTask = dict[str, BySeed]


def settings_without(run: Run, *keys: str) -> tuple[tuple[str, str], ...]:
    """The sorted settings of a run, except for some keys."""
    return tuple(sorted(item for item in run.settings.items() if item[0] not in keys))


def add_run(values: ByTask, run: Run) -> None:
    """Add the tasks of a run that have a value; the first run of a seed counts."""
    for name in run.tasks:
        if (value := run.get(name)) is not None:
            values.setdefault(name, {}).setdefault(run.seed, value)


def mean_over_tasks(tasks: Iterable[BySeed]) -> BySeed:
    """The mean over tasks of each seed that has all of them."""
    values = list(tasks)
    seeds = set.intersection(*map(set, values)) if values else set()
    return {seed: sum(v[seed] for v in values) / len(values) for seed in sorted(seeds, key=str)}


def gains_over(values: BySeed, baseline: BySeed) -> list[float]:
    """Differences of the seeds that both have."""
    return [values[seed] - baseline[seed] for seed in values if seed in baseline]


def gain_cell(gains: Sequence[float], remark: str = "") -> Cell:
    """The mean of differences, ± half the width of Student's 95 % interval.

    Args:
        remark: follows the numbers.
    """
    if not gains:
        return Cell("n/a", n=0)
    mean, half = mean_and_interval(gains)
    width = "" if half is None else f" ± {half:.1f}"
    return Cell(f"{signed(mean, 1)}{width}{remark}", mean, half, len(gains))


def backbone_of(settings: tuple[tuple[str, str], ...]) -> str:
    """The backbone among settings; "" if it was not recorded."""
    return dict(settings).get("backbone", "")


def label_methods(keys: Sequence[GroupKey]) -> list[str]:
    """The methods of the rows of tables, with the settings in brackets that distinguish the rows.

    The backbone is named where a suite has several; settings are compared per backbone, so that
    the hash of its weights is not a difference.
    """
    backbones: dict[str, set[str]] = {}
    for suite, _, _, settings in keys:
        backbones.setdefault(suite, set()).add(backbone_of(settings))
    apart = [(f"{key[0]} {backbone_of(key[3])}", *key[1:]) for key in keys]
    distinguishing = distinguishing_keys(apart)
    labels = []
    for key, other in zip(keys, apart, strict=True):
        several = {"backbone"} if len(backbones[key[0]]) > 1 else set()
        labels.append(name_method(key, distinguishing[other[:2]] | several))
    return labels
