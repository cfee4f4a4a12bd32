"""Tables that compare ways of training the same tasks: the protocols transfer and task_groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dassl.config.protocols import TASK_GROUPS, TRANSFER

from .aggregate import statistic
from .compare import mean_and_interval
from .read import Run
from .rendering import Cell, Table
from .tables import best_of, shots_name, signed

SCRATCH, SOURCE = "from scratch", "from source"
ALONE, GROUPED, TOGETHER = "alone", "in groups", "all together"
GROUPS = "groups "  # how the name of a way starts that trains groups of tasks; they follow
TITLES = {TRANSFER: "from source tasks", TASK_GROUPS: "groups of tasks"}
BASELINE = {TRANSFER: SCRATCH, TASK_GROUPS: ALONE}
FIRST = (SCRATCH, ALONE)  # columns before those of sources or groups, and before TOGETHER
NOTES = (
    "minus: paired over seeds, ± half the width of Student's 95 % interval over seeds; for the "
    "mean, the number of tasks above the baseline follows",
)
ByTask = dict[str, dict[int | None, float]]  # value by task and seed


@dataclass
class Block:
    """One method with one number of shots.

    Args:
        place: protocol, suite and target tasks, see :func:`_place`.
        ways: values by way of training.
    """

    place: tuple[str, str, str]
    method: str
    shots: int
    ways: dict[str, ByTask] = field(default_factory=dict)

    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the runs."""
        return list(dict.fromkeys(name for values in self.ways.values() for name in values))

    def seeds(self, way: str, task: str) -> dict[int | None, float]:
        """Values by seed; a group of a single task is that task alone."""
        own = self.ways.get(way, {}).get(task)
        if own is None and way.startswith(GROUPS):
            own = self.ways.get(ALONE, {}).get(task)
        return own or {}

    def mean(self, way: str) -> dict[int | None, float]:
        """The mean over tasks of each seed that has all of them."""
        values = [self.seeds(way, task) for task in self.tasks()]
        seeds = set.intersection(*map(set, values)) if values else set()
        return {seed: sum(v[seed] for v in values) / len(values) for seed in sorted(seeds, key=str)}


def compares_ways(run: Run) -> bool:
    """Whether a run belongs to one of these protocols."""
    return run.settings.get("name") in TITLES


def way_tables(runs: Sequence[Run], order: Sequence[str] = ()) -> list[Table]:
    """A table per suite and protocol: a row per method, shots and task, a column per way.

    Args:
        order: methods in the order of the rows; others follow as they come.
    """
    found = [run for run in runs if run.complete and compares_ways(run)]
    zero_shot = {_place(run): run for run in found if run.shots == 0}
    blocks = _blocks([run for run in found if run.shots != 0], order)
    tables = []
    for kind in dict.fromkeys(block.place[:2] for block in blocks):
        members = [block for block in blocks if block.place[:2] == kind]
        tables.append(_table(*kind, [(block, zero_shot.get(block.place)) for block in members]))
    return tables


def _place(run: Run) -> tuple[str, str, str]:
    """What the runs that are compared have in common, whatever their method."""
    protocol = run.settings["name"]
    return protocol, run.suite, run.settings.get("tasks", "all") if protocol == TRANSFER else ""


def _blocks(runs: Sequence[Run], order: Sequence[str]) -> list[Block]:
    """The runs by method, shots and the settings that all ways share; sources are left out."""
    groupings = _groupings({run.settings.get("tasks", "all") for run in runs})
    blocks: dict[tuple, Block] = {}
    for run in runs:
        own = ("tasks", "data", "init_from")
        settings = tuple(sorted(item for item in run.settings.items() if item[0] not in own))
        key = (_place(run), run.method, run.shots, settings)
        block = blocks.setdefault(key, Block(*key[:3]))
        values = block.ways.setdefault(_way(run, groupings), {})
        for name in run.tasks:
            if (value := run.get(name)) is not None:
                values.setdefault(name, {}).setdefault(run.seed, value)
    ranks = {name: i for i, name in enumerate(order)}
    compared = [block for block in blocks.values() if len(block.ways) > 1]
    return sorted(
        compared, key=lambda block: (block.place, ranks.get(block.method, len(ranks)), block.shots)
    )


def _way(run: Run, groupings: dict[str, str]) -> str:
    """How a run was trained."""
    if run.settings["name"] == TRANSFER:
        source = run.settings.get("init_from", "").rpartition(" ")[0]  # without its hash
        return f"from {source}" if source else SCRATCH
    tasks = run.settings.get("tasks", "all")
    return TOGETHER if tasks == "all" else groupings.get(tasks, ALONE)


def _groupings(choices: Iterable[str]) -> dict[str, str]:
    """The way of each choice of several tasks; groups that share a task are of different ways."""
    ways: list[list[str]] = []
    for choice in sorted(choices):
        numbers = re.fullmatch(r"task(\d+(?:\+\d+)+)", choice)
        if numbers is None:
            continue
        tasks = set(numbers[1].split("+"))
        free = (way for way in ways if all(tasks.isdisjoint(group.split("+")) for group in way))
        way = next(free, None)
        if way is None:
            ways.append([numbers[1]])
        else:
            way.append(numbers[1])
    return {f"task{group}": f"{GROUPS}{', '.join(way)}" for way in ways for group in way}


def _table(protocol: str, suite: str, members: Sequence[tuple[Block, Run | None]]) -> Table:
    ways = list(dict.fromkeys(way for block, _ in members for way in block.ways))
    ways.sort(key=lambda way: (way == TOGETHER, way not in FIRST))
    names = dict(zip(ways, ways, strict=True))
    notes, others = [*NOTES], [way for way in ways if way not in (*FIRST, TOGETHER)]
    if len(others) == 1:
        (words,) = others
        names[words] = GROUPED if words.startswith(GROUPS) else SOURCE
        notes.append(f"{names[words]}: {words.removeprefix('from ').removeprefix(GROUPS)}")
    if protocol == TASK_GROUPS:
        notes.append("a group of a single task is that task alone")
    baseline = BASELINE[protocol]
    compared = [way for way in ways if way != baseline]
    has_zero_shot = any(run for _, run in members)
    rows = [
        row
        for block, zero_shot in members
        for row in _rows(block, zero_shot if has_zero_shot else None, ways, baseline)
    ]
    if not has_zero_shot:
        rows = [(*row[:3], *row[4:]) for row in rows]
    return Table(
        title=f"{suite}, {TITLES[protocol]}: mean ± std over seeds, in %",
        head=(
            *("method", "shots", "task"),
            *(["zero-shot"] if has_zero_shot else []),
            *(names[way] for way in ways),
            *(f"{names[way]} minus {baseline}" for way in compared),
        ),
        rows=tuple(rows),
        keys=3,
        breaks=1,
        suite=suite,
        notes=tuple(notes),
    )


def _rows(
    block: Block, zero_shot: Run | None, ways: Sequence[str], baseline: str
) -> Iterator[tuple[Cell, ...]]:
    """A row per task, and one of the means over tasks."""
    tasks = block.tasks()
    compared = [way for way in ways if way != baseline]
    first = Cell(block.method), Cell(shots_name(block.shots))
    wins = dict.fromkeys(compared, 0)
    known = [zero_shot.get(task) if zero_shot else None for task in tasks]
    for task, value in zip(tasks, known, strict=True):
        seeds = {way: block.seeds(way, task) for way in ways}
        gains = {way: _gains(seeds[way], seeds[baseline]) for way in compared}
        for way, gain in gains.items():
            wins[way] += bool(gain) and sum(gain) > 0
        stats = [statistic([value]), *(statistic(seeds[way].values()) for way in ways)]
        yield (*first, Cell(task), *best_of(stats), *map(_gain_cell, gains.values()))
    means = {way: block.mean(way) for way in ways}
    zero = None if None in known else sum(v for v in known if v is not None) / len(known)
    stats = [statistic([zero]), *(statistic(means[way].values()) for way in ways)]
    gain_cells = [
        _gain_cell(_gains(means[way], means[baseline]), f", {wins[way]} of {len(tasks)}")
        for way in compared
    ]
    yield (*first, Cell("mean"), *best_of(stats), *gain_cells)


def _gains(values: dict[int | None, float], baseline: dict[int | None, float]) -> list[float]:
    """Differences of the seeds that both have."""
    return [values[seed] - baseline[seed] for seed in values if seed in baseline]


def _gain_cell(gains: Sequence[float], remark: str = "") -> Cell:
    if not gains:
        return Cell("n/a", n=0)
    mean, half = mean_and_interval(gains)
    width = "" if half is None else f" ± {half:.1f}"
    return Cell(f"{signed(mean, 1)}{width}{remark}", mean, half, len(gains))
