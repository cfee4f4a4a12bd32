"""Which tasks help each other: what joint runs recorded, beside runs on single tasks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dassl.utils import UserError, naming_damaged, read_json, write_json

from .aggregate import GroupKey, statistic
from .by_task import (
    BySeed,
    ByTask,
    add_run,
    gain_cell,
    gains_over,
    label_methods,
    settings_without,
)
from .read import Run
from .rendering import Cell, Table
from .schema import is_number
from .shots import shots_name
from .tables import signed, stat_cell

FILE = "task_relations.json"
Matrix = list[list[float | None]]
NOTES = (
    "gain: jointly minus alone over the same seeds, ± half the width of Student's 95 % interval",
    "columns of tasks: cosine of the two tasks' gradients, mean over training and seeds; then, for "
    "methods with a meta network, the cosine of their generated contexts at the end",
)


def save_relations(trainer: Any, folder: Path) -> None:
    """Write what the trainer's observers recorded about its tasks."""
    for observer in trainer.observers:
        content = observer.relations()
        if content.get("steps"):
            write_json(content, folder / FILE)


@dataclass(frozen=True)
class Relations:
    """The tasks of joint runs with one method, over seeds.

    Args:
        method: followed by the settings that distinguish it from other relations, in brackets.
        gradients: (T, T) mean cosines; None for pairs that no batch had.
        contexts: (T, T) mean cosines of generated contexts; None without a meta network.
        joint, alone: values of each task by seed.
    """

    suite: str
    method: str
    shots: int
    tasks: list[str]
    gradients: Matrix
    contexts: Matrix | None
    joint: list[BySeed]
    alone: list[BySeed]

    def gains(self, t: int) -> list[float]:
        """Jointly minus alone of task ``t``, for the seeds that both have."""
        return gains_over(self.joint[t], self.alone[t])


def relations_of(runs: Sequence[Run]) -> list[Relations]:
    """The relations of the tasks, per suite, method, shots and settings; a seed counts once.

    Of runs on several parts of a suite, those with the most tasks count. Runs on single tasks are
    found by these, seed and name of the task, whatever balances the tasks.

    Raises:
        UserError: a file of relations is broken, or runs of one method have other tasks.
    """
    groups: dict[GroupKey, list[Run]] = {}
    for run in runs:
        if run.complete and len(run.tasks) > 1 and (run.folder / FILE).is_file():
            groups.setdefault(_key(run), []).append(run)
    alone: dict[GroupKey, list[Run]] = {}
    for run in runs:
        if run.complete and re.fullmatch(r"task\d+", run.settings.get("tasks", "")):
            alone.setdefault(_without_balance(_key(run)), []).append(run)
    found = []
    labels = label_methods(list(groups))
    for (key, members), method in zip(groups.items(), labels, strict=True):
        most = max(len(run.tasks) for run in members)
        by_seed: dict[int | None, Run] = {}
        for run in members:
            if len(run.tasks) == most:
                by_seed.setdefault(run.seed, run)
        singles = alone.get(_without_balance(key), [])
        found.append(_relations(method, list(by_seed.values()), singles))
    return found


def _key(run: Run) -> GroupKey:
    """What the joint runs of one comparison have in common, and runs on one of their tasks."""
    return run.suite, run.method, run.shots, settings_without(run, "name", "tasks", "data")


def _without_balance(key: GroupKey) -> GroupKey:
    """The key for runs on a single task, which has no other task to be balanced with."""
    return *key[:3], tuple(item for item in key[3] if item[0] != "balance")


def _read(path: Path, size: int) -> dict[str, Any]:
    """The content of a file of relations of ``size`` tasks."""
    content = read_json(path)
    with naming_damaged(path):
        matrices = [*content["cosines"], *([content["contexts"]] if content["contexts"] else [])]
        for matrix in matrices:
            if len(matrix) != size or not all(len(row) == size for row in matrix):
                raise ValueError(f"a matrix of another size, for {size} tasks")
            if wrong := [v for row in matrix for v in row if v is not None and not is_number(v)]:
                raise ValueError(f"{wrong[0]!r} is no number")
        if not content["cosines"]:
            raise ValueError("cosines is empty")
    return content


def _relations(method: str, members: Sequence[Run], singles: Sequence[Run]) -> Relations:
    """The relations from joint runs, one per seed, and runs on single tasks."""
    first = members[0]
    tasks = list(first.tasks)
    for run in members:
        if list(run.tasks) != tasks:
            raise UserError(
                f"{first.folder} and {run.folder} have other tasks: {', '.join(tasks)}; "
                f"{', '.join(run.tasks)}; give a folder with runs on the same tasks"
            )
    joint, alone = _values(members), _values(singles)
    contents = [_read(run.folder / FILE, len(tasks)) for run in members]
    contexts = [content["contexts"] for content in contents if content["contexts"]]
    return Relations(
        first.suite,
        method,
        first.shots,
        tasks,
        mean_matrix([mean_matrix(content["cosines"]) for content in contents]),
        mean_matrix(contexts) if contexts else None,
        joint=[joint.get(name, {}) for name in tasks],
        alone=[alone.get(name, {}) for name in tasks],
    )


def _values(runs: Sequence[Run]) -> ByTask:
    values: ByTask = {}
    for run in runs:
        add_run(values, run)
    return values


def mean_matrix(matrices: Sequence[Matrix]) -> Matrix:
    """The mean of each entry over the matrices that have it."""
    size = len(matrices[0])

    def entry(i: int, j: int) -> float | None:
        known = [v for matrix in matrices if (v := matrix[i][j]) is not None]
        return math.fsum(known) / len(known) if known else None

    return [[entry(i, j) for j in range(size)] for i in range(size)]


def relation_tables(runs: Sequence[Run]) -> list[Table]:
    """A table per suite, method and shots: a row per task."""
    return [
        Table(
            title=f"{found.suite}, {found.method}, {shots_name(found.shots)} shots: which tasks "
            "help each other",
            head=("task", "alone", "jointly", "gain", *found.tasks),
            rows=tuple(_rows(found)),
            suite=found.suite,
            notes=NOTES,
            mark="the interval lies above 0",
        )
        for found in relations_of(runs)
    ]


def _rows(found: Relations) -> Iterator[tuple[Cell, ...]]:
    for t, name in enumerate(found.tasks):
        values = [stat_cell(statistic(side[t].values())) for side in (found.alone, found.joint)]
        pairs = [
            Cell("") if u == t else _pair(found.gradients[t][u], found.contexts, t, u)
            for u in range(len(found.tasks))
        ]
        yield (Cell(name), *values, _marked(gain_cell(found.gains(t))), *pairs)


def _marked(gain: Cell) -> Cell:
    """A gain, marked as best if its interval lies above 0."""
    mean, half = gain.mean, gain.spread
    return replace(gain, best=mean is not None and half is not None and mean > half)


def _pair(cosine: float | None, contexts: Matrix | None, t: int, u: int) -> Cell:
    context = contexts[t][u] if contexts else None
    shown = "n/a" if cosine is None else signed(cosine, 2)
    return Cell(shown if context is None else f"{shown}, {context:.2f}", cosine)
