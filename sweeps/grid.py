"""The runs of a grid: methods x backbones x datasets x shots x seeds, as arguments of train.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dassl.config.protocols import BASE_TO_NEW, LEAVE_ONE_TASK_OUT
from dassl.utils import UserError


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its place in the grid, its folder, and the arguments of train.py."""

    method: str
    dataset: str
    shots: int  # 0 for a method that uses none
    seed: int
    folder: Path
    argv: tuple[str, ...]
    backbone: str = ""  # "": the method's own
    needs: Path | None = None  # folder of a run that must be complete before
    note: str = ""

    def __str__(self) -> str:
        words = [self.method, *filter(None, [self.backbone]), self.dataset]
        if self.shots:
            shots = "1 shot" if self.shots == 1 else f"{self.shots} shots"
            words += ["all images" if self.shots < 0 else shots, f"seed {self.seed}"]
        return ", ".join([*words, *filter(None, [self.note])])


def override_words(keys: dict | None) -> list[str]:
    """``KEY VALUE ...`` of a mapping, as train.py takes them."""
    return [str(word) for pair in (keys or {}).items() for word in pair]


def grid_runs(content: dict, output: Path, shared: list[str], configs: Path) -> list[PlannedRun]:
    """The runs of a sweep's checked content.

    Raises:
        UserError: two methods would share a folder.
    """
    runs, owner = [], {}
    backbones = list(map(str, content.get("backbones") or [""]))
    for name in content["methods"]:
        folder = _folder_name(name)
        if owner.setdefault(folder.lower(), name) != name:
            raise UserError(
                f"the methods {owner[folder.lower()]!r} and {name!r} would share the folder "
                f"{output / folder}; rename one"
            )
        for backbone in backbones:
            place = output / folder / (_folder_name(backbone) if backbone else "")
            for dataset in map(str, content["datasets"]):
                runs += _runs_of(str(name), backbone, dataset, content, place, shared, configs)
    return runs


def _folder_name(name: object) -> str:
    return re.sub(r"[^\w.+-]+", "-", str(name))


def _runs_of(
    name: str,
    backbone: str,
    dataset: str,
    content: dict,
    folder: Path,
    shared: list[str],
    configs: Path,
) -> Iterator[PlannedRun]:
    """The runs of one method on one dataset."""
    method = content["methods"][name]
    once = bool(method.get("once"))
    protocol = content.get("protocol") or ""
    grid = [(shots, seed) for shots in content["shots"] for seed in content["seeds"]]
    by_shots = content["shots"] if isinstance(content["shots"], dict) and not once else {}
    for shots, seed in grid[:1] if once else grid:
        cell = dataset if once else f"{dataset}_{shots}shots"
        place = folder / cell / f"seed{seed}"
        argv = [
            *("--trainer", method["trainer"]),
            *("--config-file", str(configs.parent / method["config"])),
            *("--dataset-config-file", str(configs / "datasets" / f"{dataset}.yaml")),
            *("--output-dir", str(place)),
            *("--seed", str(seed)),
            *(("--backbone", backbone) if backbone else ()),
            *(("--protocol", protocol) if protocol else ()),
            "--quiet",
            *("DATASET.NUM_SHOTS", str(shots)),
            *override_words(by_shots.get(shots)),
            *override_words(method.get("opts")),
            *shared,
        ]
        run = PlannedRun(name, dataset, 0 if once else shots, seed, place, tuple(argv), backbone)
        if protocol == BASE_TO_NEW:
            yield replace(run, note="base classes")
            place = folder / f"{cell}_new" / f"seed{seed}"
            new = ("DATASET.SUBSAMPLE_CLASSES", "new")
            yield _evaluation(run, place, None if once else run.folder, "new classes", new)
        elif protocol == LEAVE_ONE_TASK_OUT:
            for t in content["held_out"]:
                yield from _without_task(run, folder / cell / f"task{t}", t, trained=not once)
        else:
            yield run


def _without_task(run: PlannedRun, folder: Path, t: int, trained: bool) -> Iterator[PlannedRun]:
    """A training on all tasks but task t, and its evaluation on task t."""
    seed, key = run.folder.name, "DATASET.SUBSAMPLE_TASKS"
    place = folder / "training" / seed if trained else None
    if place:
        yield _elsewhere(run, place, f"without task {t}", (key, f"not_task{t}"))
    yield _evaluation(run, folder / seed, place, f"held-out task {t}", (key, f"task{t}"))


def _elsewhere(run: PlannedRun, place: Path, note: str, keys: tuple[str, ...]) -> PlannedRun:
    """A run like another in another folder, on other classes or tasks."""
    argv = [*run.argv, *keys]
    argv[argv.index("--output-dir") + 1] = str(place)
    return replace(run, folder=place, argv=tuple(argv), note=note)


def _evaluation(
    run: PlannedRun, place: Path, trained: Path | None, note: str, keys: tuple[str, ...]
) -> PlannedRun:
    """The evaluation of a run's prompts on other classes or tasks.

    Args:
        trained: folder of the training; None: there is no checkpoint to load.
        keys: ``KEY VALUE`` that choose the classes or tasks.
    """
    moved = _elsewhere(run, place, note, keys)
    if trained is None:
        return moved
    argv = list(moved.argv)
    at = argv.index("--quiet")
    argv[at:at] = ["--eval-only", "--model-dir", str(trained)]
    return replace(moved, argv=tuple(argv), needs=trained)
