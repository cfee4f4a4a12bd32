"""Mean and spread over the seeds of one experiment, in lines that CoOp's users know."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dassl.utils import UserError, listdir_nohidden, unknown_name

from .aggregate import Stat, statistic
from .logs import log_files
from .read import FILE, NO_FILE, OVERALL, Run, read_run_or_log


@dataclass(frozen=True)
class Averaging:
    """What is averaged over the seeds, and which spread is shown.

    Args:
        keyword: the value, as in :meth:`Run.get`.
        spread: what follows +-, one of SPREADS.
        ci95: 1.96 std / sqrt(n) instead of std.
        test_log: logs are those of evaluations, not of trainings.
    """

    keyword: str = OVERALL
    spread: str = "std"
    ci95: bool = False
    test_log: bool = False


@dataclass(frozen=True)
class Summary:
    """The summary of one experiment: lines to print, mean of each key, whether all runs count."""

    lines: list[str]
    means: dict[str, float | None]
    complete: bool


class _NothingFound(UserError):
    """An experiment without a complete run."""


def summarize(folder: Path, averaging: Averaging) -> Summary:
    """The summary of one experiment: a folder of seeds, or a single run.

    Raises:
        UserError: no complete run, runs of different experiments, or an unknown keyword.
    """
    runs = _runs_of(folder, averaging.test_log)
    complete = [run for run in runs if run.complete]
    unfinished = [run for run in runs if not run.complete]
    if not complete:
        raise _NothingFound(f"there is no complete run in {folder}{_hint(folder, runs)}")
    _check_one_experiment(folder, complete)
    keys = _keys(complete[0], averaging.keyword)
    _print_unknown(complete)
    lines = [f"Parsing {folder}"]
    for run in runs:
        values = ", ".join(f"{key}: {_percent(run.get(name))}" for key, name in keys.items())
        lines.append(f"{run.folder.name}: {values if run.complete else run.status}")
    stats = {
        key: statistic([run.get(name) for run in complete], averaging.spread, averaging.ci95)
        for key, name in keys.items()
    }
    lines += ["===", f"Summary of directory: {folder}"]
    if complete[0].test_subset:
        lines.append(f"evaluated on {complete[0].test_subset}")
    lines += [f"* {key}: {_with_spread(stat)}" for key, stat in stats.items()]
    if averaging.keyword == OVERALL:
        lines += _task_lines(complete, averaging)
    valueless = [run for run in complete if any(run.get(k) is None for k in keys.values())]
    n = min(stat.n for stat in stats.values())
    problems = []
    if unfinished:
        named = ", ".join(f"{run.folder.name} ({run.status})" for run in unfinished)
        problems.append(f"not complete: {named}")
    if valueless:
        named = ", ".join(run.folder.name for run in valueless)
        problems.append(f"without a value from 0 to 100: {named}")
    lines += ["; ".join([f"n = {n} of {len(runs)}", *problems]) if problems else f"n = {n}", "==="]
    means = {key: stat.mean for key, stat in stats.items()}
    return Summary(lines, means, not problems)


def _check_one_experiment(folder: Path, runs: list[Run]) -> None:
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


def _print_unknown(runs: Sequence[Run]) -> None:
    """Print to stderr what could not be compared between the runs of a mean."""
    if len(runs) == 1:
        return
    for unknown in dict.fromkeys(run.unknown for run in runs if run.unknown):
        named = ", ".join(run.folder.name for run in runs if run.unknown == unknown)
        print(f"not compared: {unknown} ({named})", file=sys.stderr)


def _runs_of(folder: Path, test_log: bool) -> list[Run]:
    if (folder / FILE).exists() or log_files(folder):
        return [read_run_or_log(folder, test_log)]
    names = [name for name in listdir_nohidden(folder) if (folder / name).is_dir()]
    return [read_run_or_log(folder / name, test_log) for name in names]


def _hint(folder: Path, runs: list[Run]) -> str:
    """A hint what the folder holds instead of complete runs."""
    deeper = next(folder.rglob(FILE), None) or next(folder.rglob("log.txt*"), None)
    if deeper and all(run.status == NO_FILE for run in runs):
        return (
            f"; the runs lie deeper, such as {deeper.parent}: give the folder of one experiment, "
            "that of several with --multi-exp, or add --table for all runs below"
        )
    return "".join(f"; {run.folder.name}: {run.status}" for run in runs) or "; it has no subfolder"


def _keys(run: Run, keyword: str) -> dict[str, str]:
    """The values to report: name in the output -> key of :meth:`Run.get`."""
    if keyword == OVERALL and run.grouped:
        return {f"{OVERALL} ({group})": group for group in run.groups}
    if keyword not in run.value_names():
        raise unknown_name("value", keyword, run.value_names())
    return {keyword: keyword}


def _task_lines(runs: list[Run], averaging: Averaging) -> list[str]:
    lines = []
    for name, task in runs[0].tasks.items():
        stat = statistic([run.get(name) for run in runs], averaging.spread, averaging.ci95)
        lines.append(f"* task: {task['id']} ({task['name']}) metric: {_with_spread(stat)}")
    return lines


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}%"


def _with_spread(stat: Stat) -> str:
    return f"{_percent(stat.mean)} +- {_percent(stat.spread)}"


def summarize_all(folder: Path, averaging: Averaging) -> Summary:
    """The summary of each subfolder, and the mean over the subfolders.

    Raises:
        UserError: no subfolder holds a complete run.
    """
    names = [name for name in listdir_nohidden(folder) if (folder / name).is_dir()]
    summaries, lines, missing = [], [], []
    for name in names:
        try:
            summaries.append(summarize(folder / name, averaging))
            lines += [*summaries[-1].lines, ""]
        except _NothingFound as error:
            missing.append(f"not counted: {error}")
    if not summaries:
        raise UserError(f"there is no complete run in the subfolders of {folder}")
    lines += [*missing, f"Average performance (n = {len(summaries)} of {len(names)} experiments)"]
    keys = dict.fromkeys(key for summary in summaries for key in summary.means)
    for key in keys:
        stat = statistic(summary.means.get(key) for summary in summaries)
        partly = "" if stat.n == len(summaries) else f" (n = {stat.n})"
        lines.append(f"* {key}: {_percent(stat.mean)}{partly}")
    complete = not missing and all(summary.complete for summary in summaries)
    return Summary(lines, {}, complete)
