"""Checks the planned runs before the first one starts, so that a mistake is reported once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from dassl.config import CfgNode, get_cfg_default
from dassl.engine.registry import TRAINER_REGISTRY
from dassl.utils import UserError
from results.leftovers import nothing_computed
from results.read import Run
from results.record import hashed_config
from results.settings import CONFIG, differences, read_config
from results.source_runs import differing_options, options_of

from .planned_run import PlannedRun, override_pairs

OTHER = "of another configuration"  # status of a run whose record is not that of the planned run
UNREAD = ("--output-dir", "--seed", "--model-dir", "--init-from")  # no configuration depends on it


def check_trainers(runs: Iterable[PlannedRun]) -> None:
    """Refuse unknown names of trainers; the program must have imported ``trainers``.

    Raises:
        UserError: it names the method of the sweep, and the nearest trainer.
    """
    for method, trainer in {run.method: run.argv[1] for run in runs}.items():
        try:
            TRAINER_REGISTRY.check_name(trainer)
        except UserError as error:
            raise UserError(f"method {method}: {error}") from None


def check_keys(runs: Iterable[PlannedRun]) -> None:
    """Refuse unknown keys and wrong values among the overrides, without importing torch.

    The keys below TRAINER, which the methods define, are left to :func:`check_configurations`.

    Raises:
        UserError: it names the method of the sweep, and the key.
    """
    default = get_cfg_default()

    def merge(argv: Sequence[str]) -> None:
        chosen = [pair for pair in override_pairs(argv) if not pair[0].startswith("TRAINER.")]
        default.clone().merge_from_list([word for pair in chosen for word in pair])

    check_configurations(runs, merge)


def check_configurations(runs: Iterable[PlannedRun], read: Callable[[Sequence[str]], Any]) -> None:
    """Read every configuration of the runs once.

    Args:
        read: reads that of train.py's arguments.

    Raises:
        UserError: one cannot be used; it names the method of the sweep, and what is wrong.
    """
    for run in {(run.method, *_read_words(run.argv)): run for run in runs}.values():
        _read(run, read)


def check_sources(runs: Iterable[PlannedRun], read: Callable[[Sequence[str]], CfgNode]) -> None:
    """Refuse trainings that could not start from what their source run will have learned.

    Args:
        runs: those that are not complete, and the source runs that they need.
        read: reads the configuration of train.py's arguments.

    Raises:
        UserError: the source trains several tasks separately, or with other options of the method;
            it names the method of the sweep, and the keys.
    """
    by_folder = {run.folder: run for run in runs}
    moved = [run for run in by_folder.values() if "--init-from" in run.argv]
    for run in {(run.method, *_read_words(run.argv)): run for run in moved}.values():
        if run.needs not in by_folder:  # complete: train.py compares its record
            continue
        source, target = _read(by_folder[run.needs], read), _read(run, read)
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
    from dassl.data.task_choice import choose_tasks

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


def mark_other_configurations(
    runs: Sequence[PlannedRun], records: Sequence[Run], read: Callable[[Sequence[str]], CfgNode]
) -> list[Run]:
    """The records, with the status OTHER where the recorded run is not the planned one.

    Their ``error`` is the difference. A run that failed before it computed anything is left as it
    is, since train.py repeats it with any configuration. Data and weights are not compared.

    Args:
        records: of the runs, in the same order.
        read: reads the configuration of train.py's arguments.

    Raises:
        UserError: a configuration cannot be used.
    """
    planned: dict[tuple[str, ...], dict] = {}
    marked = []
    for run, record in zip(runs, records, strict=True):
        failed_early = record.status == "failed" and nothing_computed(run.folder)
        if (run.folder / CONFIG).exists() and not failed_early:
            words = tuple(_read_words(run.argv))
            if words not in planned:
                planned[words] = hashed_config(_read(run, read))
            config = {**planned[words], "SEED": run.seed}
            if found := differences(read_config(run.folder), config):
                record = replace(record, status=OTHER, error=found)
        marked.append(record)
    return marked


def _read(run: PlannedRun, read: Callable[[Sequence[str]], CfgNode]) -> CfgNode:
    """The configuration of a planned run; an error names the method of the sweep."""
    try:
        return read(run.argv)
    except UserError as error:
        raise UserError(f"method {run.method}: {error}") from None


def _read_words(argv: Sequence[str]) -> list[str]:
    """The words that a configuration is read from: runs that differ in others have equal ones."""
    skipped = {i + offset for i, word in enumerate(argv) if word in UNREAD for offset in (0, 1)}
    return [word for i, word in enumerate(argv) if i not in skipped]
