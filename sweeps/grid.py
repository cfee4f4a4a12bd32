"""The runs of a grid: methods x backbones x datasets x shots x seeds, as arguments of train.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dassl.utils import UserError

from .protocols import Cell, PlannedRun, override_words, protocol_runs


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
    return list({run.folder: run for run in runs}.values())  # a source serves all shots


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
    by_shots = content["shots"] if isinstance(content["shots"], dict) and not once else {}

    def plan(dataset: str, shots: int, seed: int, place: Path) -> PlannedRun:
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
        return PlannedRun(name, dataset, 0 if once else shots, seed, place, tuple(argv), backbone)

    grid = [(shots, seed) for shots in content["shots"] for seed in content["seeds"]]
    for shots, seed in grid[:1] if once else grid:
        yield from protocol_runs(Cell(plan, folder, dataset, shots, seed, not once), content)
