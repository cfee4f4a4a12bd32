"""Tables of the protocols whose runs are each on a part of a suite's tasks, and the runs in them.

The table of leave_one_task_out is made here, those of transfer and task_groups in
:mod:`results.ways`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dassl.config.protocols import LEAVE_ONE_TASK_OUT

from .aggregate import GroupKey, Stat, statistic
from .by_task import (
    ByTask,
    add_run,
    backbone_of,
    gain_cell,
    label_methods,
    mean_over_tasks,
    settings_without,
)
from .read import Run
from .rendering import Cell, Table
from .shots import shots_name
from .tables import best_of
from .task_relations import relation_tables
from .ways import compares_ways, way_tables

NOTES = (
    "each column: a task that the training has not seen, tested from its name and class names",
    "mean: over the seeds that tested every task; wins: tasks above zero-shot",
    "over zero-shot: difference of the means, ± half the width of Student's 95 % interval over "
    "tasks",
)


@dataclass(frozen=True)
class HeldOut:
    """One method's accuracy on tasks that it was not trained on.

    Args:
        method: followed by the settings that distinguish it from other rows, in brackets.
        backbone: "" if it was not recorded.
        values: accuracy by task and seed.
    """

    suite: str
    method: str
    shots: int
    backbone: str
    values: ByTask

    def task(self, name: str) -> Stat:
        """Mean and spread over seeds of a task."""
        return statistic(self.values.get(name, {}).values())

    def mean(self, names: Sequence[str]) -> Stat:
        """Mean over tasks of each seed that tested all of them; its mean and spread over seeds."""
        return statistic(mean_over_tasks(self.values.get(name, {}) for name in names).values())


def has_protocol_table(run: Run) -> bool:
    """Whether a run belongs to one of these protocols, so that only its table counts it."""
    return run.settings.get("name") == LEAVE_ONE_TASK_OUT or compares_ways(run)


def without_protocol_tables(runs: Sequence[Run]) -> list[Run]:
    """The runs that other tables count: all but complete ones of these protocols."""
    return [run for run in runs if not (run.complete and has_protocol_table(run))]


def protocol_tables(runs: Sequence[Run], order: Sequence[str] = ()) -> list[Table]:
    """The tables of held-out tasks, of ways of training, and of relations between tasks.

    Args:
        order: methods in the order of the rows; others follow as they come.
    """
    return [*_held_out_tables(runs, order), *way_tables(runs, order), *relation_tables(runs)]


def _held_out_tables(runs: Sequence[Run], order: Sequence[str]) -> list[Table]:
    """A table per suite: a row per method and shots, a column per held-out task."""
    rows = _rows(
        [run for run in runs if run.complete and run.settings.get("name") == LEAVE_ONE_TASK_OUT],
        order,
    )
    tables = []
    for suite in dict.fromkeys(row.suite for row in rows):
        members = [row for row in rows if row.suite == suite]
        names = list(dict.fromkeys(name for row in members for name in row.values))
        columns = [best_of([row.task(name) for row in members]) for name in names]
        means = best_of([row.mean(names) for row in members])
        body = []
        for i, row in enumerate(members):
            others = (r for r in members if r is not row and r.backbone == row.backbone)
            zero_shot = next((r for r in others if r.shots == 0), None)
            body.append(
                (
                    Cell(row.method),
                    Cell(shots_name(row.shots)),
                    means[i],
                    *_against(row, zero_shot, names),
                    *(column[i] for column in columns),
                )
            )
        tables.append(
            Table(
                title=f"{suite}, held-out tasks: mean ± std over seeds, in %",
                head=("method", "shots", "mean", "over zero-shot", "wins", *names),
                rows=tuple(body),
                keys=2,
                suite=suite,
                notes=NOTES,
            )
        )
    return tables


def _rows(runs: Sequence[Run], order: Sequence[str]) -> list[HeldOut]:
    """The tests of single tasks by method, shots and the settings that all tasks share."""
    values: dict[GroupKey, ByTask] = {}
    tests = [run for run in runs if re.fullmatch(r"task\d+", run.settings.get("tasks", ""))]
    for run in sorted(tests, key=lambda run: int(run.settings["tasks"][4:])):
        key = (run.suite, run.method, run.shots, settings_without(run, "tasks", "data"))
        add_run(values.setdefault(key, {}), run)
    ranks = {name: i for i, name in enumerate(order)}
    rows = [
        (key[1], HeldOut(key[0], label, key[2], backbone_of(key[3]), values[key]))
        for key, label in zip(values, label_methods(list(values)), strict=True)
    ]
    rows.sort(key=lambda pair: (pair[1].suite, pair[1].shots, ranks.get(pair[0], len(ranks))))
    return [row for _, row in rows]


def _against(row: HeldOut, zero_shot: HeldOut | None, names: Sequence[str]) -> tuple[Cell, Cell]:
    """Difference to zero-shot over tasks, and the number of tasks above it."""
    if zero_shot is None:
        return Cell(""), Cell("")
    pairs = [(row.task(name).mean, zero_shot.task(name).mean) for name in names]
    gains = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    if not gains:
        return Cell(""), Cell("")
    return gain_cell(gains), Cell(f"{sum(gain > 0 for gain in gains)} of {len(gains)}")
