"""The runs of a grid: methods x backbones x datasets x shots x seeds, as arguments of train.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dassl.engine.configuration import node_of, nodes_read
from dassl.utils import UserError
from dassl.utils.errors import did_you_mean

from .planned_run import PlannedRun, override_words
from .protocols import Cell, protocol_runs


def grid_runs(content: dict, output: Path, shared: list[str], configs: Path) -> list[PlannedRun]:
    """The runs of a sweep's checked content.

    Args:
        shared: overrides of every run; those of a method's node are left to the methods that
            read it.

    Raises:
        UserError: two methods would share a folder, or no method reads an override.
    """
    runs, owner = [], {}
    unread = _unread_nodes(content, shared, configs)
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
            if owner.setdefault(f"{place}/".lower(), backbone) != backbone:
                raise UserError(
                    f"the backbones {owner[f'{place}/'.lower()]!r} and {backbone!r} would share "
                    f"the folder {place}; leave one out"
                )
            for dataset in map(str, content["datasets"]):
                runs += _runs_of(
                    str(name), backbone, dataset, content, place, shared, configs, unread[name]
                )
    return list({run.folder: run for run in runs}.values())  # a source serves all shots


def _unread_nodes(content: dict, shared: list[str], configs: Path) -> dict[str, set[str]]:
    """The nodes that a method does not read, but another one of the sweep, by method.

    Raises:
        UserError: an override is in a node that no method reads.
    """
    by_shots = content["shots"].values() if isinstance(content["shots"], dict) else ()
    keys = [*shared[::2], *(key for overrides in by_shots for key in overrides or {})]
    if not any(map(node_of, keys)):  # finding the nodes imports torch
        return {name: set() for name in content["methods"]}
    nodes = {}
    for name, method in content["methods"].items():
        file, own = configs.parent / method["config"], override_words(method.get("opts"))
        try:
            nodes[name] = nodes_read(method["trainer"], file, own, shared)
        except UserError as error:
            raise UserError(f"method {name}: {error}") from None
    known = sorted(set().union(*nodes.values()))
    for key in shared[::2]:
        if (node := node_of(key)) and node not in known and all(nodes.values()):
            raise UserError(
                f"{key} has no effect: no method of the sweep reads TRAINER.{node}"
                f"{did_you_mean(node, known) or ';'} they read {', '.join(known)}"
            )
    return {name: {*known} - read if read else set() for name, read in nodes.items()}


def _without(unread: set[str], words: list[str]) -> list[str]:
    """``KEY VALUE`` words without those of nodes that a method does not read."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for pair in pairs if node_of(pair[0]) not in unread for word in pair]


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
    unread: set[str],
) -> Iterator[PlannedRun]:
    """The runs of one method on one dataset; see :func:`_unread_nodes`."""
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
            *_without(unread, override_words(by_shots.get(shots))),
            *override_words(method.get("opts")),
            *_without(unread, shared),
        ]
        return PlannedRun(name, dataset, 0 if once else shots, seed, place, tuple(argv), backbone)

    grid = [(shots, seed) for shots in content["shots"] for seed in content["seeds"]]
    for shots, seed in grid[:1] if once else grid:
        yield from protocol_runs(Cell(plan, folder, dataset, shots, seed, not once), content)
