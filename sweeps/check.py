"""Checks the planned runs before the first one starts, so that a mistake is reported once.

The names of trainers and datasets are known once a program has imported ``trainers`` and
``datasets``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dassl.config import CfgNode, get_cfg_default
from dassl.engine.arguments import parse_args, setup_cfg
from dassl.engine.registry import TRAINER_REGISTRY
from dassl.utils import UserError
from dassl.utils.errors import Problems
from results.leftovers import nothing_computed
from results.read import Run
from results.record import hashed_config
from results.settings import CONFIG, differences, read_config
from results.source_runs import differing_options, options_of

from .planned_run import PlannedRun, override_pairs

OTHER = "of another configuration"  # status of a run whose record is not that of the planned run
UNREAD = ("--output-dir", "--seed", "--model-dir", "--init-from")  # no configuration depends on it


def check_trainers(runs: Iterable[PlannedRun]) -> None:
    """Refuse unknown names of trainers.

    Raises:
        UserError: it names the method of the sweep, and the nearest trainer.
    """
    for run in {run.method: run for run in runs}.values():
        with _naming_method(run):
            TRAINER_REGISTRY.check_name(run.argv[1])


def check_keys(runs: Iterable[PlannedRun]) -> None:
    """Refuse unknown keys and wrong values among the overrides, without importing torch.

    The keys below TRAINER, which the methods define, are left to :func:`check_configurations`.

    Raises:
        UserError: it names the method of the sweep, and the key.
    """
    default = get_cfg_default()
    for run in _of_each_configuration(runs):
        chosen = [pair for pair in override_pairs(run.argv) if not pair[0].startswith("TRAINER.")]
        with _naming_method(run):
            default.clone().merge_from_list([word for pair in chosen for word in pair])


def check_configurations(runs: Iterable[PlannedRun]) -> None:
    """Read every configuration of the runs once; refuse methods that do not fit their datasets.

    Where a method cannot be trained on every kind of task, the dataset is read, once for all
    methods. One that cannot be read here is left to its runs.

    Raises:
        UserError: a configuration cannot be used; or some methods have wrong options or cannot be
            trained on the tasks of a dataset: a line for each.
    """
    from dassl.engine.build import check_method  # imports torch

    spaces: dict[str, Any] = {}

    def read_space(cfg: CfgNode) -> Any:
        key = str({**cfg.DATASET, "NUM_SHOTS": 0})
        if key not in spaces:
            spaces[key] = _task_space(cfg)
        return spaces[key]

    problems, refused = Problems(), set()
    for run in _of_each_configuration(runs):
        cfg = _read(run)
        if run.method not in refused and cfg.DATASET.NAME:
            with problems.collecting(), _naming_method(run):
                refused.add(run.method)
                check_method(cfg, read_space)
                refused.remove(run.method)
    problems.report()


def _task_space(cfg: CfgNode) -> Any:
    """The tasks of a dataset; None if it cannot be read."""
    from dassl.data.datasets import build_dataset

    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(UserError, OSError):
        return build_dataset(cfg).space
    return None


def check_sources(runs: Iterable[PlannedRun]) -> None:
    """Refuse trainings that could not start from what their source run will have learned.

    Args:
        runs: those that are not complete, and the source runs that they need.

    Raises:
        UserError: the source trains several tasks separately, or with other options of the method;
            it names the method of the sweep, and the keys.
    """
    by_folder = {run.folder: run for run in runs}
    moved = [run for run in by_folder.values() if "--init-from" in run.argv]
    for run in _of_each_configuration(moved):
        if run.needs not in by_folder:  # complete: train.py compares its record
            continue
        source, target = _read(by_folder[run.needs]), _read(run)
        trainer: Any = TRAINER_REGISTRY.get(source.TRAINER.NAME)
        if trainer.suite == "each" and has_several_tasks(source):
            raise UserError(
                f"method {run.method}: {source.TRAINER.NAME} would train each task of source "
                "separately, and the targets could start from none of them; give source one task, "
                "or choose a method that trains all tasks jointly, such as MTCoOp or MTCoOpHard"
            )
        for key, (there, here) in differing_options(target, options_of(source)).items():
            raise UserError(
                f"method {run.method}: the source would be trained with {key} {there!r}, the "
                f"targets with {here!r}, but what is learned fits the same options only; give both "
                "the same, in opts of the method"
            )


def has_several_tasks(cfg: CfgNode) -> bool:
    """Whether a configuration names several tasks, as far as that is known without the data."""
    from dassl.data import dataset_class  # imports torch
    from dassl.data.task_subsets import choose_tasks

    choice = cfg.DATASET.SUBSAMPLE_TASKS
    try:
        return len(choose_tasks(choice, _count_tasks(dataset_class(cfg), cfg))) > 1
    except UserError:  # the classes of datasets do not tell the number of tasks
        return choice.startswith("task") and "+" in choice


def _count_tasks(dataset: Any, cfg: CfgNode) -> int:
    """The number of tasks of a dataset or suite: of each dataset the published one, usually 1."""
    if not hasattr(dataset, "member_configs"):
        return getattr(dataset, "num_tasks", 1)
    return sum(_count_tasks(*member) for member in dataset.member_configs(cfg))


def mark_other_configurations(runs: Sequence[PlannedRun], records: Sequence[Run]) -> list[Run]:
    """The records, with the status OTHER where the recorded run is not the planned one.

    Their ``error`` is the difference. A run that failed before it computed anything is left as it
    is, since train.py repeats it with any configuration. Data and weights are not compared.

    Args:
        records: of the runs, in the same order.

    Raises:
        UserError: a configuration cannot be used.
    """
    planned: dict[tuple[str, ...], dict] = {}
    marked = []
    for run, record in zip(runs, records, strict=True):
        failed_early = record.status == "failed" and nothing_computed(run.folder)
        if (run.folder / CONFIG).exists() and not failed_early:
            words = _read_words(run)
            if words not in planned:
                planned[words] = hashed_config(_read(run))
            config = {**planned[words], "SEED": run.seed}
            if found := differences(read_config(run.folder), config):
                record = replace(record, status=OTHER, error=found)
        marked.append(record)
    return marked


@contextlib.contextmanager
def _naming_method(run: PlannedRun) -> Iterator[None]:
    """Name the method of the sweep in the errors of a user."""
    try:
        yield
    except UserError as error:
        raise UserError(f"method {run.method}: {error}") from None


def _read(run: PlannedRun) -> CfgNode:
    """The configuration of a planned run."""
    with _naming_method(run):
        return setup_cfg(parse_args(list(run.argv)))


def _of_each_configuration(runs: Iterable[PlannedRun]) -> Iterable[PlannedRun]:
    """One run of each method and configuration."""
    return {(run.method, *_read_words(run)): run for run in runs}.values()


def _read_words(run: PlannedRun) -> tuple[str, ...]:
    """The words that a configuration is read from: runs that differ in others have equal ones."""
    words = run.argv
    skipped = {i + offset for i, word in enumerate(words) if word in UNREAD for offset in (0, 1)}
    return tuple(word for i, word in enumerate(words) if i not in skipped)
