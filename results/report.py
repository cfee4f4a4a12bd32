"""The tables and notes of a report on many runs, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .aggregate import Row, aggregate
from .compare import BaseNew, base_and_new, missing_runs, paired_differences, suspicious_runs
from .held_out import held_out_tables, without_held_out
from .paired_images import image_table, paired_images
from .published import compare, published_parts
from .published_sets import published_on_sets
from .read import Run
from .rendering import Notes, Table, render
from .tables import base_new_tables, difference_table, format_table, shot_tables, task_tables


@dataclass(frozen=True)
class Choices:
    """What a report contains.

    Args:
        order: methods in the order of the rows; others follow by name.
        spread: what follows ±, one of results.aggregate.SPREADS.
        reference: the method that others are compared with; "": every pair.
        published: add the published numbers.
    """

    order: tuple[str, ...] = ()
    spread: str = "std"
    reference: str = ""
    published: bool = False


def report_parts(runs: Sequence[Run], choices: Choices) -> list[Table | Notes]:
    """The tables and notes over runs.

    Raises:
        UserError: the reference is no method.
    """
    held_out = held_out_tables(runs, choices.order)
    runs = without_held_out(runs)
    rows = aggregate(runs, choices.order)
    pairs = base_and_new(runs, choices.order)
    parts: list[Table | Notes] = [
        *held_out,
        *shot_tables(rows, choices.spread),
        *base_new_tables(pairs),
        *(_published(rows, pairs, choices.spread) if choices.published else []),
    ]
    differences = paired_differences(rows, choices.reference)
    if differences:
        parts.append(difference_table(differences))
    if pairs_of_images := paired_images(rows, choices.reference):
        parts.append(image_table(pairs_of_images))
    for table in task_tables(rows, choices.spread):
        title = table.title.replace(f"{table.suite}:", f"{table.suite}, task by task:", 1)
        parts.append(replace(table, title=title))
    return [*parts, *_notes(rows, runs)]


def format_runs(
    runs: Sequence[Run], form: str, order: Sequence[str] = (), spread: str = "std"
) -> str:
    """The tables of a sweep, and its runs that are not complete.

    Held-out tasks have a table of their own, other runs a row per method and number of shots.

    Args:
        form: ``text``, ``md``, ``csv`` or ``latex``.
        order: methods in the order of the rows.
        spread: what follows ±, one of results.aggregate.SPREADS.
    """
    held_out = render(held_out_tables(runs, order), form)
    others = without_held_out(runs)
    if not others:
        return held_out
    unfinished = [run for run in others if not run.complete]
    return held_out + format_table(aggregate(others, order), form, unfinished, spread)


def _published(rows: Sequence[Row], pairs: Sequence[BaseNew], spread: str) -> list[Table | Notes]:
    """The published numbers on CoOp's datasets and on SoftCPT's suites, where there are runs."""
    on_sets = published_on_sets(rows, pairs, spread)
    on_suites = published_parts(rows)
    return on_sets if on_sets and not any(compare(rows)) else [*on_sets, *on_suites]


def _notes(rows: Sequence[Row], runs: Sequence[Run]) -> Iterator[Notes]:
    unknown = (f"{run.folder}: {run.status}" for run in runs if not run.complete and not run.method)
    missing = (*missing_runs(rows), *unknown)
    if missing:
        yield Notes("Incomplete: missing runs, counted in no table", missing)
    flagged = tuple(suspicious_runs(rows))
    if flagged:
        yield Notes("Suspicious runs: they may have collapsed, but are counted", flagged)
