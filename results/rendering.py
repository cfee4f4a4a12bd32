"""Tables as data, and their forms: plain text, Markdown, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dassl.utils import unknown_name

TEXT_WIDTH = 110  # wider text tables are cut into parts with the same first columns
BEST = "*"  # behind the best of a column, in plain text
CSV_HEAD = ("table", "suite", "row", "column", "mean", "spread", "n", "best", "text")
LATEX_HEAD = """\
% Compiles as it is; with \\usepackage{booktabs} the rules are drawn as that package does.
\\providecommand{\\toprule}{\\hline}
\\providecommand{\\midrule}{\\hline}
\\providecommand{\\bottomrule}{\\hline}
"""
LATEX_BOLD = "\\textbf{{{}}}"
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
    """What a table shows in one place; the numbers behind it are for CSV and for sorting."""

    text: str
    mean: float | None = None
    spread: float | None = None
    n: int | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A titled table; the first ``keys`` columns say what a row is.

    ``breaks`` names the column whose change starts a new block of rows (-1: none).
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    keys: int = 1
    breaks: int = -1
    suite: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notes:
    """A titled list of remarks, such as what is missing."""

    title: str
    lines: tuple[str, ...]


def render(parts: Sequence[Table | Notes], form: str) -> str:
    """Tables and notes one below the other.

    Args:
        form: ``text``, ``md``, ``csv`` (one line per number) or ``latex``.

    Raises:
        UserError: another form.
    """
    if form not in FORMS:
        raise unknown_name("table format", form, FORMS)
    return FORMS[form](parts)


def _text(parts: Sequence[Table | Notes]) -> str:
    return "\n".join(_text_part(part) for part in parts)


def _text_part(part: Table | Notes) -> str:
    if isinstance(part, Notes):
        return _plain(f"{part.title}:\n{_bullets(part.lines)}")
    best = (f"{BEST} best of its block",) if any(c.best for row in part.rows for c in row) else ()
    notes = "".join(f"({note})\n" for note in (*best, *part.notes))
    return _plain(f"{part.title}\n{_text_table(part)}{notes}")


def _plain(text: str) -> str:
    return text.replace("±", "+-").replace("−", "-").replace("–", "-")


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _markdown(parts: Sequence[Table | Notes]) -> str:
    return "\n".join(_markdown_part(part) for part in parts)


def _markdown_part(part: Table | Notes) -> str:
    if isinstance(part, Notes):
        return f"{part.title}:\n\n{_bullets(part.lines)}"
    cells = [list(part.head), *([_marked(c, "**{}**") for c in row] for row in part.rows)]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    align = ["---", *["---:"] * (len(part.head) - 1)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in [cells[0], align, *cells[1:]])
    notes = "".join(f"\n{note}\n" for note in part.notes)
    return f"### {part.title}\n\n{table}{notes}"


def _marked(cell: Cell, mark: str, escape: Callable[[str], str] = str) -> str:
    return mark.format(escape(cell.text)) if cell.best else escape(cell.text)


def _csv(parts: Sequence[Table | Notes]) -> str:
    """A line per number, with full precision; notes are left to the other forms."""
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


def _latex(parts: Sequence[Table | Notes]) -> str:
    return LATEX_HEAD + "\n".join(_latex_part(part) for part in parts)


def _latex_part(part: Table | Notes) -> str:
    if isinstance(part, Notes):
        lines = "".join(f"  \\item {latex_escape(line)}\n" for line in part.lines)
        title = latex_escape(part.title)
        return f"\\paragraph{{{title}}}\n\\begin{{itemize}}\n{lines}\\end{{itemize}}\n"
    widths = [
        max(map(len, column))
        for column in zip(part.head, *([c.text for c in row] for row in part.rows), strict=True)
    ]
    tabulars = [
        _tabular(part, [*range(part.keys), *columns]) for columns in _parts(widths, part.keys)
    ]
    caption = " ".join(latex_escape(words) for words in (f"{part.title}.", *part.notes))
    return "\n".join(
        [
            "\\begin{table}[ht]",
            f"  \\caption{{{caption}}}",
            "  \\centering\\scriptsize\\setlength{\\tabcolsep}{4pt}",
            "\n\n  \\medskip\n".join(tabulars),
            "\\end{table}\n",
        ]
    )


def _tabular(table: Table, shown: Sequence[int]) -> str:
    """A tabular of some of the columns."""
    lines = [
        f"  \\begin{{tabular}}{{l{'r' * (len(shown) - 1)}}}",
        "  \\toprule",
        f"  {' & '.join(latex_escape(table.head[i]) for i in shown)} \\\\",
        "  \\midrule",
    ]
    key = table.breaks
    for i, row in enumerate(table.rows):
        if i and key >= 0 and row[key].text != table.rows[i - 1][key].text:
            lines.append("  \\midrule")
        cells = [_marked(row[j], LATEX_BOLD, latex_escape) for j in shown]
        lines.append(f"  {' & '.join(cells)} \\\\")
    return "\n".join([*lines, "  \\bottomrule", "  \\end{tabular}"])


def latex_escape(text: str) -> str:
    """The text as LaTeX shows it."""
    return "".join(LATEX_ESCAPES.get(char, char) for char in text)


def _text_table(table: Table) -> str:
    cells = [list(table.head), *([_marked(c, f"{{}}{BEST}") for c in row] for row in table.rows)]
    cells = [[_plain(cell) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    parts = []
    for part in _parts(widths, table.keys):
        shown = [*range(table.keys), *part]
        lines = ["  ".join(_padded(row[i], widths[i], i) for i in shown).rstrip() for row in cells]
        rule = "-" * (sum(widths[i] + 2 for i in shown) - 2)
        key = table.breaks
        starts = [
            i
            for i in range(1, len(cells))
            if i == 1 or (key >= 0 and cells[i][key] != cells[i - 1][key])
        ]
        for i in reversed(starts):
            lines.insert(i, rule)
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _padded(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _parts(widths: list[int], keys: int) -> list[list[int]]:
    """Columns after the first ones, cut so that each part fits TEXT_WIDTH."""
    start = sum(width + 2 for width in widths[:keys])
    parts: list[list[int]] = [[]]
    room = TEXT_WIDTH - start
    for i in range(keys, len(widths)):
        if parts[-1] and room < widths[i]:
            parts.append([])
            room = TEXT_WIDTH - start
        parts[-1].append(i)
        room -= widths[i] + 2
    return parts


FORMS = {"text": _text, "md": _markdown, "csv": _csv, "latex": _latex}
