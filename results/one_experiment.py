"""Checks that the runs of a mean are the seeds of one experiment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import UserError

from .read import Run


def check_one_experiment(folder: Path, runs: list[Run]) -> None:
    """Refuse to average runs that differ in more than the seed, or to count a seed twice."""
    first, *others = runs
    expected = _shared_settings(first)
    for run in others:
        found = _shared_settings(run)
        for key in dict.fromkeys([*expected, *found]):
            wanted, other = expected.get(key, "not recorded"), found.get(key, "not recorded")
            if wanted != other:
                raise UserError(
                    f"the runs in {folder} are not seeds of one experiment: {key} is "
                    f"{wanted} in {first.folder.name}, {other} in {run.folder.name}"
                    f"{_data_difference(first, run) if key == 'data' else ''}; "
                    "--table text shows them apart"
                )
    seeds: dict[int | None, str] = {}
    for run in runs:
        if run.seed is not None and run.seed in seeds:
            raise UserError(
                f"{seeds[run.seed]} and {run.folder.name} in {folder} have the same seed "
                f"{run.seed}; delete one"
            )
        seeds[run.seed] = run.folder.name


def _shared_settings(run: Run) -> dict[str, str]:
    """Everything in which the seeds of one experiment must agree."""
    row = {"method": run.method, "suite": run.suite, "shots": str(run.shots)}
    return {**row, "task names": ", ".join(run.tasks), **run.settings}


def _data_difference(first: Run, second: Run) -> str:
    """What differs in the test data or the names of two runs, in brackets."""
    from dassl.data.identity import first_difference

    same = {"items": 0, "hash": ""}  # train and val differ between seeds
    summaries = [
        {"tasks": [{**task, "train": same, "val": same} for task in run.data.get("tasks", [])]}
        for run in (first, second)
    ]
    found = first_difference(*summaries)
    return f" ({found})" if found else ""


def print_unknown(runs: Sequence[Run]) -> None:
    """Print to stderr what could not be compared between the runs of a mean."""
    if len(runs) == 1:
        return
    for unknown in dict.fromkeys(run.unknown for run in runs if run.unknown):
        named = ", ".join(run.folder.name for run in runs if run.unknown == unknown)
        print(f"not compared: {unknown} ({named})", file=sys.stderr)
