"""What comparisons with published numbers share: names, settings that must match, remarks."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .aggregate import Row, Stat
from .read import Run
from .rendering import Cell

SEEDS = {1, 2, 3}  # of the published means
SELECTIONS = ("last_step", "none")  # published: the last step; none: nothing is trained by steps
# Settings that every published number has, by key; a run without the key has the first value.
ALWAYS = {
    "name": ("few_shot", "coop", "base_to_new"),  # of the protocol
    "init_from": ("a random start",),
    "trained_on": ("the evaluated tasks",),
    "TEST.SPLIT": ("test",),
    "DATASET.METRIC": ("",),
}
# Settings that a run may have set, unlike the published ones; it is compared, and they are named.
OWN_CHOICES = ("DATASET.TEMPLATE", "DATASET.TASK_NAMES", "balance")
UNSET = (None, "", "()", "[]")
SUITE = "General10"
GENERAL10 = (  # its tasks by number
    "Caltech101",
    "DescribableTextures",
    "EuroSAT",
    "FGVCAircraft",
    "Food101",
    "OxfordFlowers",
    "OxfordPets",
    "StanfordCars",
    "SUN397",
    "UCF101",
)


def read_shipped(name: str) -> list[dict[str, str]]:
    """The lines of one of the CSV files beside this module, without its comments."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def plain_name(name: str) -> str:
    """A name of a method or suite without case, blanks and dashes."""
    return "".join(char for char in name.lower() if char.isalnum() or char in "*+")


def published_name(name: str, aliases: Mapping[str, str]) -> str:
    """The plain name of a method of ours in a published table."""
    return aliases.get(plain_name(name), plain_name(name))


def mismatches(run: Run, must_match: Mapping[str, tuple]) -> Iterator[str]:
    """What keeps a run from being compared: settings by key, and test images left out."""
    settings = {key: allowed[0] for key, allowed in ALWAYS.items()} | run.settings
    for key, allowed in {**ALWAYS, **must_match}.items():
        value = settings.get(key, "")
        if (value.split(",")[0] if key == "selection" else value) not in allowed:
            found = settings.get(key, "not recorded")
            yield f"{key} is {found}, published: {allowed[0] or 'none'}"
    if run.test_subset:
        yield f"{run.test_subset} are evaluated, published: all"
    if run.suite == SUITE and len(run.tasks) != len(GENERAL10):
        yield f"{len(run.tasks)} tasks are evaluated, published: {len(GENERAL10)}"


def differences(row: Row) -> list[str]:
    """Seeds, and words and weights of tasks, that are not the published ones; empty if all are."""
    seeds, settings = {run.seed for run in row.runs}, row.runs[0].settings
    shown = ", ".join(map(str, sorted(seeds, key=str)))
    same = seeds == SEEDS or not row.shots  # without training images, seeds make no difference
    found = [] if same else [f"seeds {shown} (published: 1, 2, 3)"]
    own = (f"{key} {settings[key]}" for key in OWN_CHOICES if settings.get(key) not in UNSET)
    return [*found, *own]


def remarks(name: str, why_not: Sequence[str], differs: Sequence[str]) -> list[str]:
    """What keeps a row from being compared, or else from being like the published one, in words."""
    if why_not:
        return [f"{name}: not compared: {'; '.join(why_not)}"]
    return [f"{name}: differs in {'; '.join(differs)}"] if differs else []


def stat_cell(stat: Stat | None) -> Cell:
    """Mean and spread with two decimals; a dash without a value."""
    if stat is None or stat.mean is None:
        return Cell("–", n=0)
    spread = "" if stat.spread is None or stat.n < 2 else f" ± {stat.spread:.2f}"
    return Cell(f"{stat.mean:.2f}{spread}", stat.mean, stat.spread, stat.n)


def by_dataset(row: Row) -> list[Row]:
    """The row itself, or if it is of General-10, whose tasks are ten of the datasets, ten rows.

    The published methods train each task of a suite by itself, so its value is comparable.
    """
    if row.runs[0].suite != SUITE:
        return [row]
    parts = [[_on_task(run, i) for run in row.runs] for i in range(len(GENERAL10))]
    return [replace(row, suite=runs[0].suite, runs=tuple(runs)) for runs in parts]


def own_runs_first(rows: Iterable[Row]) -> list[Row]:
    """Rows on a single dataset before those on General-10, which also have a value for it."""
    return sorted(rows, key=lambda row: row.runs[0].suite == SUITE)  # stable


def repeated(places: Iterable[tuple[str, str]]) -> list[str]:
    """Lines on the datasets and methods that occur more than once; the first is shown."""
    counts = Counter(places).items()
    return [f"{a}, {b}: the first of {n} results is shown" for (a, b), n in counts if n > 1]


def _on_task(run: Run, number: int) -> Run:
    """A run on General-10 as one on the dataset of its task ``number``."""
    (task,) = (task for task in run.tasks.values() if task["id"] == number)
    return replace(run, suite=GENERAL10[number], overall=task["value"])
