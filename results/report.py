"""The tables and notes of a report on many runs, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .aggregate import Row, aggregate
from .compare import BaseNew, base_and_new, missing_runs, paired_differences, suspicious_runs
from .extra_columns import USUAL, ExtraColumns
from .paired_images import image_table, paired_images
from .protocol_tables import protocol_tables, without_protocol_tables
from .published_coop import published_on_sets
from .published_softcpt import compare, published_parts
from .published_transfer import published_transfer
from .read import Run
from .rendering import Notes, Table, render
from .tables import base_new_tables, difference_table, format_table, shot_tables, task_tables


@dataclass(frozen=True)
class Choices:
    """What a report contains.

    Args:
        order: methods in the order of the rows; others follow by name.
        spread: what follows ±, one of SPREADS.
        reference: the method that others are compared with; "": every pair.
        published: add the published numbers.
        extra: columns beside the accuracies.
    """

    order: tuple[str, ...] = ()
    spread: str = "std"
    reference: str = ""
    published: bool = False
    extra: ExtraColumns = USUAL


class Report:
    """Many runs, grouped into rows once, for tables, figures and pages.

    Runs on a part of a suite's tasks have tables of their own, and are in no other table or figure.

    Args:
        runs: complete and incomplete ones.
    """

    def __init__(self, runs: Sequence[Run], choices: Choices):
        self.runs, self.choices = runs, choices
        self._counted = without_protocol_tables(runs)
        self.rows = aggregate(self._counted, choices.order)

    @property
    def protocol_rows(self) -> list[Row]:
        """The rows of runs in tables of their own."""
        counted = {id(run) for run in self._counted}
        return aggregate([run for run in self.runs if id(run) not in counted], self.choices.order)

    def parts(self) -> list[Table | Notes]:
        """The tables and notes.

        Raises:
            UserError: the reference is no method.
        """
        rows, choices = self.rows, self.choices
        pairs = base_and_new(self._counted, choices.order)
        parts: list[Table | Notes] = [
            *protocol_tables(self.runs, choices.order),
            *shot_tables(rows, choices.spread, choices.extra),
            *base_new_tables(pairs, choices.extra),
            *(_published(rows, pairs, choices.spread) if choices.published else []),
        ]
        differences = paired_differences(rows, choices.reference)
        if differences:
            parts.append(difference_table(differences))
        if pairs_of_images := paired_images(rows, choices.reference):
            parts.append(image_table(pairs_of_images))
        for table in task_tables(rows, choices.spread, choices.extra):
            title = table.title.replace(f"{table.suite}:", f"{table.suite}, task by task:", 1)
            parts.append(replace(table, title=title))
        return [*parts, *_notes(rows, self._counted)]

    def format_rows(self, form: str) -> str:
        """One table of a row per method and shots, after those of protocols; what is missing.

        Args:
            form: ``text``, ``md``, ``csv`` or ``latex``.
        """
        tables = render(protocol_tables(self.runs, self.choices.order), form)
        if not self._counted:
            return tables
        unfinished = [run for run in self._counted if not run.complete]
        spread, extra = self.choices.spread, self.choices.extra
        return tables + format_table(self.rows, form, unfinished, spread, extra)


def _published(rows: Sequence[Row], pairs: Sequence[BaseNew], spread: str) -> list[Table | Notes]:
    """The published numbers on CoOp's datasets and on SoftCPT's suites, where there are runs."""
    on_sets = [*published_on_sets(rows, pairs, spread), *published_transfer(rows, spread)]
    on_suites = published_parts(rows)
    return on_sets if on_sets and not any(compare(rows)) else [*on_sets, *on_suites]


def _notes(rows: Sequence[Row], runs: Sequence[Run]) -> Iterator[Notes]:
    unknown = (f"{run.folder}: {run.status}" for run in runs if not run.complete and not run.method)
    missing = (*missing_runs(rows), *unknown)
    if missing:
        yield Notes("Incomplete: missing runs, counted in no table", missing)
    flagged = tuple(suspicious_runs(rows))
    if flagged:
        yield Notes(
            "Counted, but worth a look: below zero-shot, or a loss that is not finite",
            flagged,
        )
