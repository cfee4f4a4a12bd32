"""Tables as data, rendered as plain text, Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dassl.utils import unknown_name

TEXT_WIDTH = 110  # wider tables are split by columns; every part repeats the key columns
BEST_MARKS = {"text": "{}*", "md": "**{}**", "latex": "\\textbf{{{}}}"}
CSV_HEAD = ("table", "suite", "row", "column", "mean", "spread", "n", "best", "text")
LATEX_HEAD = """\
% Compiles as it is; with \\usepackage{booktabs} the rules are drawn as that package does.
\\providecommand{\\toprule}{\\hline}
\\providecommand{\\midrule}{\\hline}
\\providecommand{\\bottomrule}{\\hline}
"""
LATEX_ESCAPES = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "−": "$-$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


@dataclass(frozen=True)
class Cell:
    """A cell's text, and the numbers behind it for CSV and for sorting.

    Args:
        best: whether the value is the best of its column; it is set in bold.
    """

    text: str
    mean: float | None = None
    spread: float | None = None
    n: int | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A titled table.

    Args:
        keys: number of columns, the first ones, that identify a row.
        breaks: the column whose change starts a new block of rows; -1: there are no blocks.
        suite: the suite, as a column of the CSV form.
        notes: remarks below the table.
        mark: what the mark of the text form means; "" if ``notes`` says so.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    keys: int = 1
    breaks: int = -1
    suite: str = ""
    notes: tuple[str, ...] = ()
    mark: str = "best of its block"


@dataclass(frozen=True)
class Notes:
    """A titled list of remarks, such as the runs that are missing."""

    title: str
    lines: tuple[str, ...]


def render(parts: Sequence[Table | Notes], form: str) -> str:
    """The tables and notes, one below the other.

    Args:
        form: ``text``, ``md``, ``latex`` or ``csv``, which has a line per number and no notes.

    Raises:
        UserError: there is no such form.
    """
    if form not in FORMS:
        raise unknown_name("table format", form, FORMS)
    if form == "csv":
        return _csv(parts)
    table, notes = FORMS[form]
    text = "\n".join(notes(part) if isinstance(part, Notes) else table(part) for part in parts)
    return _ascii_signs(text) if form == "text" else text if form == "md" else LATEX_HEAD + text


def _ascii_signs(text: str) -> str:
    return text.replace("±", "+-").replace("−", "-").replace("–", "-")


def _marked_cells(table: Table, form: str, escape: Callable[[str], str] = str) -> list[list[str]]:
    """The text of all cells below the head, with the best ones marked."""
    return [
        [BEST_MARKS[form].format(escape(c.text)) if c.best else escape(c.text) for c in row]
        for row in table.rows
    ]


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _text_notes(notes: Notes) -> str:
    return f"{notes.title}:\n{_bullets(notes.lines)}"


def _text_table(table: Table) -> str:
    cells = [list(table.head), *_marked_cells(table, "text")]
    cells = [[_ascii_signs(cell) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    blocks = _block_starts(table)
    parts = []
    for columns in _fitting_columns(widths, table.keys):
        rule = "-" * (sum(widths[i] + 2 for i in columns) - 2)
        lines = []
        for number, row in enumerate(cells, -1):  # the head is row -1
            if number in blocks:
                lines.append(rule)
            padded = (row[i].rjust(widths[i]) if i else row[i].ljust(widths[i]) for i in columns)
            lines.append("  ".join(padded).rstrip())
        parts.append("\n".join(lines) + "\n")
    explained = table.mark and any(cell.best for row in table.rows for cell in row)
    notes = (*([f"* {table.mark}"] if explained else []), *table.notes)
    below = "".join(f"({note})\n" for note in notes)
    return "\n".join([table.title, *parts]) + below


def _block_starts(table: Table) -> set[int]:
    """The rows that a rule stands above: the first, and the first of every block."""
    rows, column = table.rows, table.breaks
    return {
        i
        for i in range(len(rows))
        if i == 0 or (column >= 0 and rows[i][column].text != rows[i - 1][column].text)
    }


def _fitting_columns(widths: Sequence[int], keys: int) -> list[list[int]]:
    """The columns of each part of a table, so that a part fits TEXT_WIDTH.

    Every part starts with the ``keys`` columns that identify a row.
    """
    parts: list[list[int]] = [[*range(keys)]]
    for i in range(keys, len(widths)):
        if len(parts[-1]) > keys and sum(widths[j] + 2 for j in (*parts[-1], i)) - 2 > TEXT_WIDTH:
            parts.append([*range(keys)])
        parts[-1].append(i)
    return parts


def _markdown_notes(notes: Notes) -> str:
    return f"{notes.title}:\n\n{_bullets(notes.lines)}"


def _markdown_table(table: Table) -> str:
    align = ["---", *["---:"] * (len(table.head) - 1)]
    rows = [list(table.head), align, *_marked_cells(table, "md")]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    notes = "".join(f"\n{note}\n" for note in table.notes)
    return f"### {table.title}\n\n{lines}{notes}"


def _csv(parts: Sequence[Table | Notes]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for part in parts:
        if isinstance(part, Table):
            writer.writerows(_csv_lines(part))
    return out.getvalue()


def _csv_lines(table: Table) -> list[list]:
    lines = []
    for row in table.rows:
        label = "; ".join(
            f"{name} {cell.text}" if i else cell.text
            for i, (name, cell) in enumerate(zip(table.head[: table.keys], row, strict=False))
        )
        for name, cell in zip(table.head[table.keys :], row[table.keys :], strict=True):
            if cell.text:
                numbers = ["" if v is None else v for v in (cell.mean, cell.spread, cell.n)]
                best = int(cell.best)
                lines.append([table.title, table.suite, label, name, *numbers, best, cell.text])
    return lines


def latex_escape(text: str) -> str:
    """The text with LaTeX's special characters escaped."""
    return "".join(LATEX_ESCAPES.get(char, char) for char in text)


def _latex_notes(notes: Notes) -> str:
    items = "".join(f"  \\item {latex_escape(line)}\n" for line in notes.lines)
    title = latex_escape(notes.title)
    return f"\\paragraph{{{title}}}\n\\begin{{itemize}}\n{items}\\end{{itemize}}\n"


def _latex_table(table: Table) -> str:
    columns = zip(table.head, *([c.text for c in row] for row in table.rows), strict=True)
    widths = [max(map(len, column)) for column in columns]
    tabulars = [_tabular(table, shown) for shown in _fitting_columns(widths, table.keys)]
    caption = " ".join(f"{latex_escape(text)}." for text in (table.title, *table.notes))
    return "\n".join(
        [
            "\\begin{table}[ht]",
            f"  \\caption{{{caption}}}",
            "  \\centering\\scriptsize\\setlength{\\tabcolsep}{4pt}",
            "\n\n  \\medskip\n".join(tabulars),
            "\\end{table}\n",
        ]
    )


def _tabular(table: Table, columns: Sequence[int]) -> str:
    """A tabular of some of a table's columns."""
    lines = [
        f"  \\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        "  \\toprule",
        f"  {' & '.join(latex_escape(table.head[i]) for i in columns)} \\\\",
    ]
    blocks = _block_starts(table)
    for number, row in enumerate(_marked_cells(table, "latex", latex_escape)):
        if number in blocks:
            lines.append("  \\midrule")
        lines.append(f"  {' & '.join(row[i] for i in columns)} \\\\")
    return "\n".join([*lines, "  \\bottomrule", "  \\end{tabular}"])


FORMS = {
    "text": (_text_table, _text_notes),
    "md": (_markdown_table, _markdown_notes),
    "csv": (),
    "latex": (_latex_table, _latex_notes),
}
