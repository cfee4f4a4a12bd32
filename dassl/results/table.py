"""Tables over many runs, in Markdown or as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dassl.utils import unknown_name

from .aggregate import Row, Stat, columns
from .read import Run

FORMATS = ("text", "md")
TEXT_WIDTH = 110  # wider tables are cut into parts with the same first columns
FIRST = ("method", "shots", "seeds")


def format_table(
    rows: Sequence[Row], form: str = "text", unfinished: Sequence[Run] = (), sample: bool = False
) -> str:
    """A table per suite: mean and standard deviation in percent, a row per method and shots.

    Args:
        rows: sorted by suite, as :func:`~dassl.results.aggregate.aggregate` gives them.
        form: ``text`` or ``md``.
        unfinished: runs that no row counts; they are named below the table.
        sample: the sample standard deviation instead of the population's.
    """
    if form not in FORMATS:
        raise unknown_name("table format", form, FORMATS)
    parts = []
    for suite, members in groupby(rows, key=lambda row: row.suite):
        members = list(members)
        title = f"{suite}: mean {'±' if form == 'md' else '+-'} std over seeds, in %"
        parts.append(f"### {title}\n" if form == "md" else title)
        cells = _cells(members, form, sample)
        parts.append(_markdown(cells) if form == "md" else _text(cells))
    if unfinished:
        parts.append("Not complete, not counted:" + ("\n" if form == "md" else ""))
        parts.append("\n".join(f"- {run.folder}: {run.status}" for run in unfinished) + "\n")
    return "\n".join(parts)


def _cells(rows: list[Row], form: str, sample: bool) -> list[list[str]]:
    """All cells as text; the first row is the head."""
    keys = columns(rows)
    out = [[*FIRST, *(title for _, title in keys)]]
    for row in rows:
        shown = [_shown(row.stat(key, sample), form) for key, _ in keys]
        out.append([row.method, shots_name(row.shots), row.seeds, *shown])
    return out


def shots_name(shots: int) -> str:
    """A number of shots for people."""
    return "all" if shots < 0 else str(shots)


def _shown(stat: Stat, form: str) -> str:
    if stat.mean is None:
        return "n/a"
    if stat.n == 1 or stat.spread is None:
        return f"{stat.mean:.1f}"
    return f"{stat.mean:.1f} {'±' if form == 'md' else '+-'} {stat.spread:.1f}"


def _markdown(cells: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    align = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [cells[0], align, *cells[1:]])


def _text(cells: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    parts = []
    for part in _parts(widths):
        shown = [*range(len(FIRST)), *part]
        lines = ["  ".join(_padded(row[i], widths[i], i) for i in shown).rstrip() for row in cells]
        rule = "-" * (sum(widths[i] + 2 for i in shown) - 2)
        starts = [i for i in range(1, len(cells)) if i == 1 or cells[i][1] != cells[i - 1][1]]
        for i in reversed(starts):  # a line before each number of shots
            lines.insert(i, rule)
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _padded(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _parts(widths: list[int]) -> list[list[int]]:
    """Columns after the first ones, cut so that each part fits TEXT_WIDTH."""
    start = sum(width + 2 for width in widths[: len(FIRST)])
    parts: list[list[int]] = [[]]
    room = TEXT_WIDTH - start
    for i in range(len(FIRST), len(widths)):
        if parts[-1] and room < widths[i]:
            parts.append([])
            room = TEXT_WIDTH - start
        parts[-1].append(i)
        room -= widths[i] + 2
    return parts
