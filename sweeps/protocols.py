"""The runs that a protocol makes of one cell of a grid, and the keys of the YAML that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dassl.config.protocols import BASE_TO_NEW, LEAVE_ONE_TASK_OUT, TASK_GROUPS, TRANSFER
from dassl.utils import UserError, unknown_name

from .planned_run import PlannedRun, override_pairs, override_words

NEEDED_KEYS = {  # keys of the YAML that one protocol needs, and no other has
    LEAVE_ONE_TASK_OUT: {"held_out": "the numbers of the tasks to leave out"},
    TRANSFER: {
        "source": "the tasks to train on first",
        "targets": "the numbers of the tasks to train on then",
    },
    TASK_GROUPS: {"groups": "lists of the numbers of the tasks to train on together"},
}
SOURCE_KEYS = {
    "dataset": str,  # a name of configs/datasets/<name>.yaml; the targets' if left out
    "tasks": list,  # their numbers, from 0; all if left out
    "shots": int,  # training images per class
    "opts": dict,  # configuration keys of the source trainings
}
TASKS = "DATASET.SUBSAMPLE_TASKS"


@dataclass(frozen=True)
class Cell:
    """One method on one dataset with one number of shots and one seed.

    Args:
        plan: makes a run of the method: ``plan(dataset, shots, seed, folder)``.
        folder: of all runs of the method on the backbone.
        trained: False if neither shots nor seeds change anything.
    """

    plan: Callable[[str, int, int, Path], PlannedRun]
    folder: Path
    dataset: str
    shots: int
    seed: int
    trained: bool

    @property
    def name(self) -> str:
        """Name of the folder of its runs."""
        return f"{self.dataset}_{self.shots}shots" if self.trained else self.dataset

    def run(self, *places: str, note: str = "", keys: Sequence[str] = ()) -> PlannedRun:
        """A run in ``places`` below the folder, with more ``KEY VALUE`` words."""
        place = self.folder.joinpath(*places or [self.name], f"seed{self.seed}")
        run = self.plan(self.dataset, self.shots, self.seed, place)
        return replace(run, note=note, argv=(*run.argv, *keys))


def protocol_runs(cell: Cell, content: dict) -> Iterator[PlannedRun]:
    """The runs of a cell, as the protocol of the sweep's checked content has them."""
    plans = {
        BASE_TO_NEW: _base_to_new,
        LEAVE_ONE_TASK_OUT: _leave_one_task_out,
        TRANSFER: _transfer,
        TASK_GROUPS: _task_groups,
    }
    plan = plans.get(content.get("protocol") or "")
    return plan(cell, content) if plan else iter([cell.run()])


def _base_to_new(cell: Cell, content: dict) -> Iterator[PlannedRun]:
    """A training on the base classes, and its evaluation on the new ones."""
    base = cell.run(note="base classes")
    yield base
    new = ("DATASET.SUBSAMPLE_CLASSES", "new")
    tested = cell.run(f"{cell.name}_new", note="new classes", keys=new)
    yield _evaluation(tested, base) if cell.trained else tested


def _leave_one_task_out(cell: Cell, content: dict) -> Iterator[PlannedRun]:
    """For each held-out task, a training on all others, and its evaluation on that task."""
    for t in content["held_out"]:
        place = (cell.name, f"task{t}")
        tested = cell.run(*place, note=f"held-out task {t}", keys=(TASKS, f"task{t}"))
        if cell.trained:
            others, note = (TASKS, f"not_task{t}"), f"without task {t}"
            training = cell.run(*place, "training", note=note, keys=others)
            yield training
            yield _evaluation(tested, training)
        else:
            yield tested


def _transfer(cell: Cell, content: dict) -> Iterator[PlannedRun]:
    """A training on the source tasks, and those on the target tasks from scratch and from it."""
    keys = (TASKS, tasks_words(content["targets"]))
    if not cell.trained:
        yield cell.run(note="target tasks", keys=keys)
        return
    source = content["source"]
    dataset, shots = source.get("dataset") or cell.dataset, source["shots"]
    place = cell.folder / f"{dataset}_source" / f"seed{cell.seed}"
    first = cell.plan(dataset, shots, cell.seed, place)
    chosen = (TASKS, tasks_words(source["tasks"])) if source.get("tasks") else ()
    more = (*chosen, *override_words(source.get("opts")))
    first = replace(first, note="source tasks", argv=(*first.argv, *more))
    yield first
    yield cell.run(cell.name, "from_scratch", note="from scratch", keys=keys)
    moved = cell.run(cell.name, "from_source", note="from source", keys=keys)
    yield _with_flags(moved, first, "--init-from", str(place))


def _task_groups(cell: Cell, content: dict) -> Iterator[PlannedRun]:
    """Trainings on all tasks together, on each group of tasks, and on each task alone."""
    yield cell.run(*((cell.name, "all") if cell.trained else ()), note="all tasks")
    if not cell.trained:
        return
    tasks = sorted(t for group in content["groups"] for t in group)
    groups = [group for group in content["groups"] if 1 < len(group) < len(tasks)]
    for group in [*groups, *([t] for t in tasks)]:
        words = tasks_words(group)
        note = f"task {group[0]} alone" if len(group) == 1 else f"tasks {words[4:]}"
        yield cell.run(cell.name, words, note=note, keys=(TASKS, words))


def tasks_words(numbers: Sequence[int]) -> str:
    """The value of DATASET.SUBSAMPLE_TASKS that chooses tasks by their numbers."""
    return "task" + "+".join(map(str, sorted(numbers)))


def _evaluation(run: PlannedRun, training: PlannedRun) -> PlannedRun:
    """The run as an evaluation of what another one has learned."""
    return _with_flags(run, training, "--eval-only", "--model-dir", str(training.folder))


def _with_flags(run: PlannedRun, needs: PlannedRun, *flags: str) -> PlannedRun:
    """The run with more flags, which need another one to be complete."""
    argv = list(run.argv)
    at = argv.index("--quiet")
    argv[at:at] = flags
    return replace(run, argv=tuple(argv), needs=needs.folder)


def check_mapping(content: Any, keys: dict[str, Any], kind: str, where: str) -> dict[str, Any]:
    """Keys of a sweep's YAML with their values, without keys that have none.

    Args:
        keys: the known keys, with the type of their values or a tuple of types.
        kind: what a key is, for messages, which start with ``where``.

    Raises:
        UserError: an unknown key, or a value of another type.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}expected keys and values, but got {content!r}")
    found = {}
    for key, value in content.items():
        if key not in keys:
            raise UserError(f"{where}{unknown_name(kind, str(key), keys)}")
        kinds = keys[key] if isinstance(keys[key], tuple) else (keys[key],)
        if value is None:
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            named = " or ".join(kind.__name__ for kind in kinds)
            raise UserError(f"{where}{key} takes {named}; got {value!r}")
        found[key] = value
    return found


def check_protocol_keys(content: dict[str, Any], path: Path) -> None:
    """Refuse keys of another protocol than the sweep's, and missing or wrong ones of its own.

    Raises:
        UserError: it names the key, its value and what is allowed.
    """
    for protocol, keys in NEEDED_KEYS.items():
        for key, meaning in keys.items():
            if (content.get("protocol") == protocol) != bool(content.get(key)):
                raise UserError(
                    f"{path}: {key}, {meaning}, and the protocol {protocol} go together; give both "
                    "or neither"
                )
    for key in ("held_out", "targets"):
        _check_tasks(key, content.get(key) or [], path)
    if groups := content.get("groups"):
        if not all(isinstance(group, list) and group for group in groups):
            raise UserError(f"{path}: groups takes lists of tasks, [[0, 1], [2]], not {groups}")
        tasks = [t for group in groups for t in group]
        _check_tasks("groups", tasks, path)
        if sorted(tasks) != list(range(len(tasks))):
            raise UserError(
                f"{path}: groups must hold every task of the suite once, from 0, but holds {groups}"
            )
    if source := content.get("source"):
        _check_source(source, path)


def check_fitting(protocol: str | None, run: PlannedRun, path: Path) -> None:
    """Refuse keys of a run with which the tests of held-out tasks or classes would stop.

    Wherever the sweep has them from: its overrides, a method, or a number of shots.

    Raises:
        UserError: it names the run, the key and the protocol.
    """
    values = dict(override_pairs(run.argv))  # of a key given twice, the last
    fitted = values.get("TEST.CALIBRATION") == "task" and run.needs  # not if nothing is trained
    if protocol == LEAVE_ONE_TASK_OUT and fitted:
        raise UserError(
            f"{path}: {run}: a held-out task of {protocol} has no temperature of its own with "
            "TEST.CALIBRATION task; set run, one temperature for all tasks"
        )
    if protocol in (LEAVE_ONE_TASK_OUT, BASE_TO_NEW) and values.get("TEST.TASK_GIVEN") == "False":
        raise UserError(
            f"{path}: {run}: TEST.TASK_GIVEN False is fitted on images of the tested tasks "
            f"and classes, which {protocol} holds out; leave it True"
        )


def _check_source(source: dict[str, Any], path: Path) -> None:
    check_mapping(source, SOURCE_KEYS, "key of source", f"{path}: source: ")
    if not source.get("shots"):
        raise UserError(f"{path}: source needs shots, its training images per class (-1: all)")
    _check_tasks("tasks of source", source.get("tasks") or [], path)


def _check_tasks(key: str, tasks: list, path: Path) -> None:
    numbers = [t for t in tasks if isinstance(t, int) and not isinstance(t, bool) and t >= 0]
    if len(numbers) < len(tasks) or len(set(numbers)) < len(numbers):
        raise UserError(
            f"{path}: {key} takes different numbers of tasks, from 0, but holds {tasks}"
        )
