"""Compares runs with the published table of SoftCPT, where settings match.

Source of ``published_softcpt.csv``: the results table of https://arxiv.org/abs/2208.13474, as its
repository shows it (https://github.com/kding1225/softcpt, figure/results.png).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from .aggregate import Row, Stat
from .compare import row_name
from .published import (
    SEEDS,
    SELECTIONS,
    differences,
    mismatches,
    plain_name,
    published_name,
    read_shipped,
    remarks,
    stat_cell,
)
from .read import OVERALL
from .rendering import Cell, Notes, Table
from .shots import shots_name
from .tables import signed

FILE = "published_softcpt.csv"
SHOTS = (1, 2, 4, 8, 16)
TASKS = {"General-10": 10, "Plant-6": 6, "RS-8": 8, "Fashion-20": 20}
# Keys of the protocol, and the values that a comparable run must have.
MUST_MATCH = {
    "backbone": ("RN50",),
    "tasks": ("all",),
    "classes": ("all",),
    "metric_rule": ("per_task",),
    "selection": SELECTIONS,
}
OWN_MEMBERS = {"RS-8": "its published datasets are not known, so ours are this project's choice"}
OTHER_METHODS = {
    "ProtoNet": "its published numbers are far below a linear probe, so hardly of CLIP features"
}
KNOWN_DIFFERENCES = {
    "LP-CLIP": "the published script, which draws its own images and exchanges the two metrics",
    "SoftCPT*": "the method: ours is an interpretation of a row that is not explained",
}
# Our name -> published name, where they differ in more than case and dashes.
ALIASES = {
    "zeroshot": "zsclip",
    "zeroshotclip": "zsclip",
    "linearprobe": "lpclip",
    "lp": "lpclip",
    "softcptstar": "softcpt*",
}
# Settings of the methods that the released code trains; a run of them with other values is
# compared, and the difference is named.
RELEASED = ("CoOp-CA", "CoOp-CS", "CoOp-MT", "SoftCPT*", "SoftCPT-NATS", "SoftCPT-NATA")
SETTINGS = {
    "OPTIM.NAME": "sgd",
    "OPTIM.LR": "0.002",
    "OPTIM.MAX_EPOCH": "50",
    "DATALOADER.TRAIN_X.BATCH_SIZE": "32",
    "N_CTX": "16",
    "CTX_INIT": "",
    "PG_TYPE": "lin",
    "TOKEN_POSITION": "end",
    "CLASS_TOKEN_POSITION": "end",
}
UNKNOWN = (
    "Unknown of the published numbers, so that they may differ: the images of the splits (drawn by "
    "the authors' code), the task names in the prompts, the length of the task context (4 in the "
    "commands, 8 by the parameter counts), the optimizer steps per batch (one, or three or four as "
    "in the released code), the settings of CoCoOp, ProGrad, KgCoOp and PLOT, and whether CoOp-CA "
    "and CoOp-CS train each task by itself, or all at once as in the released commands (here "
    "MTCoOpHard with TSC or CSC)"
)


@dataclass(frozen=True)
class Published:
    """One method on one suite."""

    suite: str
    method: str
    scores: dict[int, Stat]  # by shots; 0 for zero-shot
    parameters: int | None
    minutes: float | None


@dataclass(frozen=True)
class Comparison:
    """One of our rows beside the published one; not compared if ``why_not`` names reasons."""

    row: Row
    published: Published
    ours: Stat
    theirs: Stat
    differs: tuple[str, ...] = ()
    why_not: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Our mean minus the published one, in points; None if they are not comparable."""
        if self.why_not or self.ours.mean is None or self.theirs.mean is None:
            return None
        return self.ours.mean - self.theirs.mean


@cache
def published_rows() -> tuple[Published, ...]:
    """The rows of the table as shipped."""
    return tuple(map(_published, read_shipped(FILE)))


def _published(line: dict[str, str]) -> Published:
    number = {key: float(v) if v not in ("", "-") else None for key, v in list(line.items())[2:]}
    scores = {
        shots: Stat(number[f"s{shots}_mean"], number[f"s{shots}_std"], len(SEEDS))
        for shots in SHOTS
        if number[f"s{shots}_mean"] is not None
    }
    if not scores:  # zero-shot has one number
        scores = {0: Stat(number["avg_mean"], None, 1)}
    learned = number["params"]
    return Published(
        suite=line["suite"],
        method=line["method"],
        scores=scores,
        parameters=None if learned is None else int(learned),
        minutes=number["train_time_min"],
    )


def compare(rows: Sequence[Row]) -> Iterator[Comparison]:
    """Each of our rows whose suite, method and shots are in the table, with the published one."""
    known = {(plain_name(p.suite), plain_name(p.method)): p for p in published_rows()}
    for row in rows:
        if not row.runs:
            continue
        run = row.runs[0]  # row.method may be followed by settings in brackets
        published = known.get((plain_name(run.suite), published_name(run.method, ALIASES)))
        if published and row.shots in published.scores:
            yield Comparison(
                row=row,
                published=published,
                ours=row.stat(OVERALL),
                theirs=published.scores[row.shots],
                differs=tuple(_differs(row, published)),
                why_not=tuple(_why_not(row, published)),
            )


def _why_not(row: Row, published: Published) -> Iterator[str]:
    yield from mismatches(row.runs[0], MUST_MATCH)
    if published.suite in OWN_MEMBERS:
        yield OWN_MEMBERS[published.suite]
    if published.method in OTHER_METHODS:
        yield OTHER_METHODS[published.method]
    tasks = len(row.runs[0].tasks)
    if tasks != TASKS[published.suite]:
        yield f"{tasks} tasks, published: {TASKS[published.suite]}"
    if row.stat(OVERALL).mean is None:
        yield "no mean over all tasks"


def _differs(row: Row, published: Published) -> Iterator[str]:
    yield from differences(row)
    if published.method in KNOWN_DIFFERENCES:
        yield KNOWN_DIFFERENCES[published.method]
    learned = {run.parameters for run in row.runs} - {None}
    if published.parameters and learned and learned != {published.parameters}:
        shown = ", ".join(f"{count:,}" for count in sorted(learned))
        yield f"{shown} learned values (published: {published.parameters:,})"
    variant = row.runs[0].settings
    for key, value in SETTINGS.items():
        if published.method in RELEASED and variant.get(key, value) != value:
            yield f"{key} {variant[key]} (published: {value})"


def published_parts(rows: Sequence[Row]) -> list[Table | Notes]:
    """The comparison as a table and notes on what matches, what differs and what is unknown."""
    found = list(compare(rows))
    if not found:
        suites = ", ".join(TASKS)
        line = (
            f"no run has a suite, method and number of shots of the table ({suites}; "
            f"{', '.join(dict.fromkeys(p.method for p in published_rows()))}; shots "
            f"{', '.join(map(str, SHOTS))})"
        )
        return [Notes("Published numbers", (line,))]
    parts: list[Table | Notes] = []
    shown = [c for c in found if not c.why_not]
    if shown:
        parts.append(_table(shown))
    notes = []
    for c in found:
        notes += remarks(row_name(c.row), c.why_not, c.differs)
    matched = "suite, number of tasks, shots, " + ", ".join(MUST_MATCH)
    notes.append(f"All compared rows have the published values of {matched}")
    return [*parts, Notes("Published numbers: differences and unknowns", (*notes, UNKNOWN))]


def _table(comparisons: Sequence[Comparison]) -> Table:
    body = []
    for c in comparisons:
        name = f"{c.row.method} †" if c.differs else c.row.method
        body.append(
            (
                Cell(name),
                Cell(c.row.suite),
                Cell(shots_name(c.row.shots)),
                _score(c.ours),
                _score(c.theirs),
                Cell("" if c.difference is None else signed(c.difference, 2), c.difference),
            )
        )
    return Table(
        title="Beside the published numbers: suite score in %, mean ± std (seeds)",
        head=("method", "suite", "shots", "ours", "published", "ours − published"),
        rows=tuple(body),
        keys=3,
        notes=(
            "published: https://arxiv.org/abs/2208.13474, results table",
            "†: with the differences named in the notes below",
        ),
    )


def _score(stat: Stat) -> Cell:
    cell = stat_cell(stat)
    return replace(cell, text=f"{cell.text} ({stat.n})")
