"""The runs of a grid: methods x backbones x datasets x shots x seeds, as arguments of train.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dassl.utils import UserError

BASE_TO_NEW = "base_to_new"  # the protocol whose runs are tested on the new classes too


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


def words_of(keys: dict | None) -> list[str]:
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
            *words_of(by_shots.get(shots)),
            *words_of(method.get("opts")),
            *shared,
        ]
        run = PlannedRun(name, dataset, 0 if once else shots, seed, place, tuple(argv), backbone)
        if protocol == BASE_TO_NEW:
            yield replace(run, note="base classes")
            yield _on_new_classes(run, folder / f"{cell}_new" / f"seed{seed}", trained=not once)
        else:
            yield run


def _on_new_classes(run: PlannedRun, place: Path, trained: bool) -> PlannedRun:
    """The evaluation of a trained run's prompts on the classes it did not see."""
    argv = list(run.argv)
    argv[argv.index("--output-dir") + 1] = str(place)
    if trained:
        at = argv.index("--quiet")
        argv[at:at] = ["--eval-only", "--model-dir", str(run.folder)]
    argv += ["DATASET.SUBSAMPLE_CLASSES", "new"]
    needs = run.folder if trained else None
    return replace(run, folder=place, argv=tuple(argv), needs=needs, note="new classes")
