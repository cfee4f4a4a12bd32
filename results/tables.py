"""The tables of a report: suites over shots, task by task, base and new, paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from .aggregate import SPREADS, Row, Stat, columns, measure_columns
from .compare import BaseNew, Difference, means_of
from .extra_columns import USUAL, ExtraColumns
from .read import OVERALL, Run
from .rendering import Cell, Notes, Table, render
from .shots import shots_name, shots_order

FIRST = ("method", "shots", "seeds")
MEAN_ERROR = "MAE"  # a measure that is best when low, and no percentage
MEAN_ERROR_NOTE = "MAE: mean absolute error, in steps of the order of the classes; low is good"


def format_table(
    rows: Sequence[Row],
    form: str = "text",
    unfinished: Sequence[Run] = (),
    spread: str = "std",
    extra: ExtraColumns = USUAL,
) -> str:
    """A table per suite: mean and standard deviation in percent, a row per method and shots.

    Args:
        rows: sorted by suite, as :func:`~results.aggregate.aggregate` gives them.
        form: ``text``, ``md``, ``csv`` or ``latex``.
        unfinished: runs that no row counts; they are named below the table.
        spread: what follows ±, one of SPREADS.
        extra: the last columns.
    """
    parts: list[Table | Notes] = [*task_tables(rows, spread, extra)]
    if unfinished:
        lines = tuple(f"{run.folder}: {run.status}" for run in unfinished)
        parts.append(Notes("Not complete, not counted", lines))
    return render(parts, form)


def task_tables(
    rows: Sequence[Row], spread: str = "std", extra: ExtraColumns = USUAL
) -> list[Table]:
    """A table per suite: a row per method and shots, a column per mean and per task."""
    tables = []
    for suite, members in _suites(rows):
        keys = [*columns(members), *measure_columns(members)]
        errors = [title.endswith(f", {MEAN_ERROR}") for _, title in keys]
        tasks, means = _tasks(members), means_of(members)
        body = []
        for _, block in groupby(members, key=lambda row: row.shots):
            block = list(block)
            stats = [[row.stat(key, spread) for key, _ in keys] for row in block]
            complete = [not row.unfinished for row in block]
            comparable = [_is_whole(row, tasks) for row in block]
            cells = [
                best_of(column, is_error, comparable if key in means else complete)
                for column, is_error, (key, _) in zip(
                    zip(*stats, strict=True), errors, keys, strict=True
                )
            ]
            for row, values in zip(block, zip(*cells, strict=True), strict=True):
                first = (Cell(row.method), Cell(shots_name(row.shots)), Cell(row.seeds))
                body.append((*first, *values, *extra.cells(row)))
        head = (*FIRST, *(title for _, title in keys), *extra.head())
        tables.append(
            Table(
                title=f"{suite}: {_cell_meaning(spread)}",
                head=head,
                rows=tuple(body),
                keys=len(FIRST),
                breaks=1,
                suite=suite,
                notes=(*extra.note, *([MEAN_ERROR_NOTE] if any(errors) else [])),
            )
        )
    return tables


def shot_tables(
    rows: Sequence[Row], spread: str = "std", extra: ExtraColumns = USUAL
) -> list[Table]:
    """A table per suite and mean: a row per method, a column per number of shots."""
    tables = []
    for suite, members in _suites(rows):
        shots = sorted({row.shots for row in members}, key=shots_order)
        methods = list(dict.fromkeys(row.method for row in members))
        by_place = {(row.method, row.shots): row for row in members}
        for key in means_of(members):
            stats = {
                name: [_stat(by_place.get((name, number)), key, spread) for number in shots]
                for name in methods
            }
            name = f"{suite}, {key}" if key != OVERALL else suite
            tables.append(_shot_table(name, suite, shots, stats, by_place, extra, spread))
    return tables


def _shot_table(
    title: str,
    suite: str,
    shots: list[int],
    stats: dict[str, list[Stat]],
    by_place: dict[tuple[str, int], Row],
    extra: ExtraColumns,
    spread: str,
) -> Table:
    """The table of a suite's mean, from those of each method by shots."""
    trained = [number for number in shots if number != 0]
    averaged = len(trained) > 1
    most = trained[-1] if trained else 0
    if averaged:
        places = [shots.index(number) for number in trained]
        stats = {m: [*row, _average([row[i] for i in places], spread)] for m, row in stats.items()}
    tasks = _tasks(by_place.values())
    wanted = max((len(row.runs) + len(row.unfinished) for row in by_place.values()), default=1)

    def whole(number: int | None) -> list[bool]:
        """Of each method: whether no run or task with these shots (None: any) is missing."""
        numbers = trained if number is None else [number]
        rows = [[by_place.get((method, n)) for n in numbers] for method in stats]
        return [all(_is_whole(row, tasks) for row in of_method if row) for of_method in rows]

    columns_of_cells = [
        [_with_gap(cell, number, wanted) for cell in best_of(column, whole=whole(number))]
        for number, column in zip([*shots, None], zip(*stats.values(), strict=True), strict=False)
    ]
    body = []
    for i, method in enumerate(stats):
        rows = [by_place.get((method, number)) for number in shots]
        cells = extra.cells(by_place.get((method, most), by_place.get((method, 0))), rows)
        body.append((Cell(method), *cells, *(column[i] for column in columns_of_cells)))
    head = ["method", *extra.head(shots_name(most)), *map(shots_name, shots)]
    notes = [
        "; ".join(("columns: training images per class", *extra.note)),
        *(["mean: over the numbers of shots, if none is missing"] if averaged else []),
    ]
    return Table(
        title=f"{title}, by shots: {_cell_meaning(spread)}",
        head=(*head, *(["mean"] if averaged else [])),
        rows=tuple(body),
        keys=1,
        suite=suite,
        notes=tuple(notes),
    )


def _with_gap(cell: Cell, shots: int | None, seeds: int) -> Cell:
    """The cell, with its number of seeds if others have more; shots None: the mean over shots."""
    if cell.n == 0:
        return Cell("–", n=0)
    if shots in (0, None) or cell.n == seeds:
        return cell
    return replace(cell, text=f"{cell.text} ({cell.n} of {seeds})")


def _stat(row: Row | None, key: str, spread: str) -> Stat:
    return row.stat(key, spread) if row else Stat(None, None, 0)


def _average(stats: Sequence[Stat], kind: str) -> Stat:
    """Mean of means and of spreads, as published tables have it; None if one is missing.

    The mean of intervals is no interval, so it is left out.
    """
    if any(stat.mean is None for stat in stats):
        return Stat(None, None, 0)
    spreads = [stat.spread for stat in stats]
    unknown = None in spreads or kind == "interval"
    spread = None if unknown else math.fsum(spreads) / len(spreads)
    n = min(stat.n for stat in stats)
    return Stat(math.fsum(stat.mean for stat in stats) / len(stats), spread, n)


def base_new_tables(pairs: Sequence[BaseNew], extra: ExtraColumns = USUAL) -> list[Table]:
    """A table per suite: base, new and H of every task and of their mean."""
    tables = []
    for suite in dict.fromkeys(pair.suite for pair in pairs):
        members = [pair for pair in pairs if pair.suite == suite]
        body = []
        keys = columns([pair.base for pair in members])
        first_key = keys[0][0]  # extra columns are a run's, not a task's
        for key, title in keys:
            values = [pair.values(key) for pair in members]
            sides = [
                best_of([base for base, _, _ in values]),
                best_of([new for _, new, _ in values]),
                best_of([Stat(h, None, 1) for _, _, h in values]),
            ]
            for i, pair in enumerate(members):
                first = (Cell(title), Cell(pair.base.method), Cell(shots_name(pair.base.shots)))
                last = extra.cells(pair.base) if key == first_key else extra.blank
                body.append((*first, *(side[i] for side in sides), *last))
        tables.append(
            Table(
                title=f"{suite}, base to new: {_cell_meaning()}",
                head=("task", "method", "shots", "base", "new", "H", *extra.head()),
                rows=tuple(body),
                keys=3,
                breaks=0,
                suite=suite,
                notes=(
                    "H = 2 base new / (base + new) of the two means shown, so the H of the mean is "
                    "not the mean of the tasks' H",
                    *(f"{note}; all of the base run" for note in extra.note),
                ),
            )
        )
    return tables


def difference_table(differences: Sequence[Difference]) -> Table:
    """Paired differences in percentage points; significant ones are marked."""
    body = []
    for d in differences:
        half = "" if d.half_width is None else f" ± {d.half_width:.1f}"
        where = d.suite if d.key == OVERALL else f"{d.suite}, {d.key}"
        cell = Cell(f"{signed(d.mean, 1)}{half}", d.mean, d.half_width, d.n, best=d.significant)
        name = Cell(f"{d.method} − {d.reference}")
        body.append((name, Cell(where), Cell(shots_name(d.shots)), Cell(str(d.n)), cell))
    return Table(
        title="Paired differences over the same seeds, in points",
        head=("methods", "suite", "shots", "seeds", "difference"),
        rows=tuple(body),
        keys=4,
        notes=(
            "± is the half width of Student's 95 % interval, which takes differences to be normal "
            "over seeds; marked: the interval leaves 0 out; not corrected for many comparisons",
        ),
        mark="",
    )


def best_of(stats: Sequence[Stat], errors: bool = False, whole: Sequence[bool] = ()) -> list[Cell]:
    """Cells of comparable values; the best one, after rounding, is marked.

    Args:
        errors: the values are no percentages, and the lowest is the best.
        whole: of each value, whether no seed and, of a mean, no task is missing; others are not
            marked. Empty: all are.
    """
    digits = 2 if errors else 1
    whole = whole or [True] * len(stats)
    pairs = list(zip(stats, whole, strict=True))
    means = [stat.mean for stat, is_whole in pairs if is_whole]
    shown = [round(mean, digits) for mean in means if mean is not None]
    best = None
    if len(shown) > 1 and min(shown) < max(shown):
        best = min(shown) if errors else max(shown)
    return [stat_cell(stat, digits, best if is_whole else None) for stat, is_whole in pairs]


def stat_cell(stat: Stat, digits: int = 1, best: float | None = None) -> Cell:
    """Mean and spread with so many digits, marked if the mean is ``best`` after rounding."""
    if stat.mean is None:
        return Cell("n/a", n=0)
    text = f"{stat.mean:.{digits}f}"
    if stat.n > 1 and stat.spread is not None:
        text += f" ± {stat.spread:.{digits}f}"
    return Cell(text, stat.mean, stat.spread, stat.n, best=round(stat.mean, digits) == best)


def signed(value: float, digits: int) -> str:
    """A number with its sign, a minus sign instead of a hyphen; zero has none."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def _cell_meaning(spread: str = "std") -> str:
    """What the cells of a table hold, for its title."""
    return f"mean ± {SPREADS[spread]}, in %"


def _tasks(rows: Iterable[Row]) -> set[str]:
    """Names of all tasks of the rows."""
    return set().union(*(row.tasks for row in rows))


def _is_whole(row: Row, tasks: set[str]) -> bool:
    """Whether the means of a row are over all its seeds and over all ``tasks``."""
    return not row.unfinished and row.tasks == tasks


def _suites(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for suite in dict.fromkeys(row.suite for row in rows):
        yield suite, [row for row in rows if row.suite == suite]
