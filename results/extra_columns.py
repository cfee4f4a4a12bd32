"""Columns of tables beside the accuracies: cost of a run, and its calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dassl.metrics import BINS
from dassl.utils import unknown_name

from .aggregate import Row, Stat, statistic
from .read import Run
from .rendering import Cell


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        note: what it shows, for the remark below a table.
        digits: after the point; None: one below 10, none above.
    """

    title: str
    note: str
    value: Callable[[Run], float | None]
    digits: int | None = None

    def cell(self, row: Row | None) -> Cell:
        """Its mean over the seeds of a row, empty without a value."""
        stat = statistic(self.value(run) for run in (row.runs if row else ()))
        return self._format(stat)

    def _format(self, stat: Stat) -> Cell:
        if stat.mean is None:
            return Cell("", n=0)
        digits = self.digits if self.digits is not None else int(stat.mean < 10)
        spread = f" ± {stat.spread:.{digits}f}" if self.digits and stat.n > 1 else ""
        return Cell(f"{stat.mean:,.{digits}f}{spread}", stat.mean, stat.spread, stat.n)


def _megabytes(run: Run) -> float | None:
    return run.peak_memory / 1e6 if run.peak_memory else None


def _ece_and_nll(run: Run) -> tuple[float | None, float | None]:
    from .calibration import mean_calibration  # imports numpy

    return mean_calibration(run.folder)


def _ece_and_nll_before(run: Run) -> tuple[float | None, float | None]:
    from .calibration import calibration_before

    return calibration_before(run.folder)


LEARNED = "learned"
COLUMNS = {
    LEARNED: Column("learned", "learned values", lambda run: run.parameters),
    "seconds": Column("s", "seconds of training and evaluation", lambda run: run.work_seconds),
    "memory": Column("MB", "peak memory, the GPU's if it used one", _megabytes),
    "ece": Column(
        "ECE",
        f"expected calibration error in %, {BINS} bins, mean over tasks",
        lambda run: _ece_and_nll(run)[0],
        digits=1,
    ),
    "nll": Column(
        "NLL",
        "negative log-likelihood of the right class in nats, mean over tasks",
        lambda run: _ece_and_nll(run)[1],
        digits=3,
    ),
    "ece_before": Column(
        "ECE before",
        "ECE before the temperature of TEST.CALIBRATION",
        lambda run: _ece_and_nll_before(run)[0],
        digits=1,
    ),
    "nll_before": Column(
        "NLL before",
        "NLL before the temperature of TEST.CALIBRATION",
        lambda run: _ece_and_nll_before(run)[1],
        digits=3,
    ),
}


@dataclass(frozen=True)
class ExtraColumns:
    """The chosen columns, in their order.

    Args:
        names: keys of COLUMNS.
    """

    names: tuple[str, ...]

    @property
    def note(self) -> tuple[str, ...]:
        """A remark that explains them; empty if there are none."""
        shown = [COLUMNS[name] for name in self.names]
        return ("; ".join(f"{one.title}: {one.note}" for one in shown),) if shown else ()

    @property
    def blank(self) -> tuple[Cell, ...]:
        """Empty cells."""
        return (Cell(""),) * len(self.names)

    def head(self, at: str = "") -> list[str]:
        """Titles; ``at`` follows those that are of one row alone."""
        return [
            COLUMNS[name].title + (f" at {at}" if at and name != LEARNED else "")
            for name in self.names
        ]

    def cells(self, row: Row | None, all_rows: Iterable[Row | None] = ()) -> list[Cell]:
        """The cells of a row.

        Args:
            all_rows: whose numbers of learned values are shown; by default the row's.
        """
        rows = list(all_rows) or [row]
        return [
            _learned(rows) if name == LEARNED else COLUMNS[name].cell(row) for name in self.names
        ]


USUAL = ExtraColumns((LEARNED, "seconds", "memory"))


def _learned(rows: Sequence[Row | None]) -> Cell:
    """The number of learned values, or the least and the largest one."""
    counts = sorted({r.parameters for row in rows if row for r in row.runs} - {None})
    if not counts:
        return Cell("")
    text = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return Cell(text, counts[0])


def parse_columns(text: str) -> ExtraColumns:
    """Columns by their names, separated by commas; ``none`` for no column.

    Raises:
        UserError: there is no such column.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip() not in ("", "none"))
    for name in names:
        if name not in COLUMNS:
            raise unknown_name("column", name, COLUMNS)
    return ExtraColumns(tuple(dict.fromkeys(names)))
