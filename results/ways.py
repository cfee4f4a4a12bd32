"""Tables that compare ways of training the same tasks: the protocols transfer and task_groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dassl.config.protocols import TASK_GROUPS, TRANSFER

from .aggregate import statistic
from .by_task import (
    BySeed,
    ByTask,
    add_run,
    backbone_of,
    gain_cell,
    gains_over,
    label_methods,
    mean_over_tasks,
    settings_without,
)
from .read import Run
from .rendering import Cell, Table
from .shots import shots_name
from .tables import best_of

SCRATCH, SOURCE = "from scratch", "from source"
ALONE, GROUPED, TOGETHER = "alone", "in groups", "all together"
FROM = "from "  # how the name of a way starts that trains from a source; it follows
GROUPS = "groups "  # how the name of a way starts that trains groups of tasks; they follow
TITLES = {TRANSFER: "from source tasks", TASK_GROUPS: "groups of tasks"}
BASELINE = {TRANSFER: SCRATCH, TASK_GROUPS: ALONE}
FIRST = (SCRATCH, ALONE)  # columns before those of sources or groups, and before TOGETHER
NOTES = (
    "minus: paired over seeds, ± half the width of Student's 95 % interval over seeds; for the "
    "mean, the number of tasks above the baseline follows",
)


@dataclass
class Block:
    """One method with one number of shots.

    Args:
        place: protocol, suite and target tasks, see :func:`_place`.
        settings: those that all ways of training share.
        ways: values by way of training.
        ungrouped: names of the tasks that no group holds.
        label: the method, followed by the settings that distinguish it from other blocks.
    """

    place: tuple[str, str, str]
    method: str
    shots: int
    settings: tuple[tuple[str, str], ...] = ()
    ways: dict[str, ByTask] = field(default_factory=dict)
    ungrouped: set[str] = field(default_factory=set)
    label: str = ""

    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the runs."""
        return list(dict.fromkeys(name for values in self.ways.values() for name in values))

    def seeds(self, way: str, task: str) -> BySeed:
        """Values by seed; in groups, a task that no group holds is that task alone."""
        own = self.ways.get(way, {}).get(task)
        if own is None and way.startswith(GROUPS) and task in self.ungrouped:
            own = self.ways.get(ALONE, {}).get(task)
        return own or {}

    def mean(self, way: str) -> BySeed:
        """The mean over tasks of each seed that has all of them."""
        return mean_over_tasks(self.seeds(way, task) for task in self.tasks())


def compares_ways(run: Run) -> bool:
    """Whether a run belongs to one of these protocols."""
    return run.settings.get("name") in TITLES


def way_tables(runs: Sequence[Run], order: Sequence[str] = ()) -> list[Table]:
    """A table per suite and protocol: a row per method, shots and task, a column per way.

    Args:
        order: methods in the order of the rows; others follow as they come.
    """
    found = [run for run in runs if compares_ways(run)]  # a failed group is a group
    zero_shot: dict[tuple, Run] = {}
    for run in found:
        if run.complete and run.shots == 0:
            zero_shot.setdefault((_place(run), run.settings.get("backbone", "")), run)
    blocks = _blocks([run for run in found if run.shots != 0], order)
    tables = []
    for kind in dict.fromkeys(block.place[:2] for block in blocks):
        members = [block for block in blocks if block.place[:2] == kind]
        references = [
            zero_shot.get((block.place, backbone_of(block.settings))) for block in members
        ]
        tables.append(_table(*kind, list(zip(members, references, strict=True))))
    return tables


def _place(run: Run) -> tuple[str, str, str]:
    """What runs must share to be compared, apart from the method."""
    protocol = run.settings["name"]
    return protocol, run.suite, run.settings.get("tasks", "all") if protocol == TRANSFER else ""


def _blocks(runs: Sequence[Run], order: Sequence[str]) -> list[Block]:
    """Complete runs by method, shots and the settings that all ways share; sources are left out."""
    groupings = _groupings_by_place(runs)
    blocks: dict[tuple, Block] = {}
    for run in runs:
        if not run.complete:
            continue
        settings = settings_without(run, "tasks", "data", "init_from")
        key = (_place(run), run.method, run.shots, settings)
        block = blocks.setdefault(key, Block(*key))
        grouping = groupings[_place(run)]
        for way in _ways(run, grouping):
            add_run(block.ways.setdefault(way, {}), run)
            if way == ALONE and not _is_grouped(run, grouping):
                block.ungrouped.update(run.tasks)
    ranks = {name: i for i, name in enumerate(order)}
    compared = [block for block in blocks.values() if len(block.ways) > 1]
    keys = [(" ".join(b.place[:2]), b.method, b.shots, b.settings) for b in compared]
    for block, label in zip(compared, label_methods(keys), strict=True):
        block.label = label
        _drop_hashes(block)
    return sorted(
        compared, key=lambda block: (block.place, ranks.get(block.method, len(ranks)), block.shots)
    )


def _drop_hashes(block: Block) -> None:
    """Name sources without their hash, unless the block has another of that name."""
    titles = {
        way: way.rpartition(" ")[0] for way in block.ways if way.startswith(FROM) and way != SCRATCH
    }
    count = Counter(titles.values())
    block.ways = {
        titles[way] if count[titles.get(way)] == 1 else way: values
        for way, values in block.ways.items()
    }


def _ways(run: Run, groupings: dict[str, list[str]]) -> list[str]:
    """How a run was trained; a group of tasks may belong to several ways."""
    if run.settings["name"] == TRANSFER:
        source = run.settings.get("init_from", "")
        return [f"{FROM}{source}" if source else SCRATCH]
    tasks = run.settings.get("tasks", "all")
    return [TOGETHER] if tasks == "all" else groupings.get(tasks, [ALONE])


def _is_grouped(run: Run, groupings: dict[str, list[str]]) -> bool:
    """Whether a group holds the single task of a run."""
    number = run.settings["tasks"].removeprefix("task")
    return any(number in choice.removeprefix("task").split("+") for choice in groupings)


def _groupings_by_place(runs: Sequence[Run]) -> dict[tuple, dict[str, list[str]]]:
    """The ways of each choice of several tasks, by place, from complete runs and others."""
    choices: dict[tuple, set[str]] = {}
    for run in runs:
        choices.setdefault(_place(run), set()).add(run.settings.get("tasks", "all"))
    return {place: _groupings(found) for place, found in choices.items()}


def _groupings(choices: Iterable[str]) -> dict[str, list[str]]:
    """The ways of each choice of several tasks.

    Groups that share a task are of different ways; a group belongs to all ways that it fits into.
    """
    matches = filter(None, (re.fullmatch(r"task(\d+(?:\+\d+)+)", choice) for choice in choices))
    groups = sorted([int(number) for number in match[1].split("+")] for match in matches)
    ways: list[list[list[int]]] = []
    for group in groups:
        free = [way for way in ways if _fits(group, way)]
        for way in free:
            way.append(group)
        if not free:
            ways.append([group])
    found: dict[str, list[str]] = {f"task{_plus(group)}": [] for group in groups}
    for way in ways:
        way += [group for group in groups if _fits(group, way)]  # those before its first group
        name = f"{GROUPS}{', '.join(map(_plus, sorted(way)))}"
        for group in way:
            found[f"task{_plus(group)}"].append(name)
    return found


def _fits(group: list[int], way: list[list[int]]) -> bool:
    """Whether a group shares no task with the groups of a way."""
    return all(set(group).isdisjoint(other) for other in way)


def _plus(group: list[int]) -> str:
    return "+".join(map(str, group))


def _table(protocol: str, suite: str, members: Sequence[tuple[Block, Run | None]]) -> Table:
    ways = list(dict.fromkeys(way for block, _ in members for way in block.ways))
    ways.sort(key=lambda way: (way == TOGETHER, way not in FIRST))
    names = dict(zip(ways, ways, strict=True))
    notes, others = [*NOTES], [way for way in ways if way not in (*FIRST, TOGETHER)]
    if len(others) == 1:
        (words,) = others
        names[words] = GROUPED if words.startswith(GROUPS) else SOURCE
        notes.append(f"{names[words]}: {words.removeprefix(FROM).removeprefix(GROUPS)}")
    if protocol == TASK_GROUPS:
        notes.append("a task that no group holds is that task alone")
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
    first = Cell(block.label), Cell(shots_name(block.shots))
    wins = dict.fromkeys(compared, 0)
    known = [zero_shot.get(task) if zero_shot else None for task in tasks]
    for task, value in zip(tasks, known, strict=True):
        seeds = {way: block.seeds(way, task) for way in ways}
        gains = {way: gains_over(seeds[way], block.seeds(baseline, task)) for way in compared}
        for way, gain in gains.items():
            wins[way] += bool(gain) and sum(gain) > 0
        stats = [statistic([value]), *(statistic(seeds[way].values()) for way in ways)]
        yield (*first, Cell(task), *best_of(stats), *map(gain_cell, gains.values()))
    means = {way: block.mean(way) for way in ways}
    zero = None if None in known else statistic(known).mean
    stats = [statistic([zero]), *(statistic(means[way].values()) for way in ways)]
    gain_cells = [
        gain_cell(gains_over(means[way], block.mean(baseline)), f", {wins[way]} of {len(tasks)}")
        for way in compared
    ]
    yield (*first, Cell("mean"), *best_of(stats), *gain_cells)
