"""The runs of a grid: methods x backbones x datasets x shots x seeds, as arguments of train.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dassl.engine.configuration import node_of, nodes_read
from dassl.utils import UserError
from dassl.utils.errors import did_you_mean

from .planned_run import PlannedRun, override_words
from .protocols import Cell, protocol_runs


def grid_runs(content: dict, output: Path, shared: list[str]) -> list[PlannedRun]:
    """The runs of a sweep's checked content.

    Args:
        shared: overrides of every run; those of a method's node are left to the methods that
            read it.

    Raises:
        UserError: two methods would share a folder, or no method reads an override.
    """
    runs: list[PlannedRun] = []
    unread = _unread_nodes(content, shared)
    grid = [(shots, seed) for shots in content["shots"] for seed in content["seeds"]]
    for name, backbone, folder in _folders(content, output):
        method = _Method(content, shared, name, backbone, unread[name])
        for dataset in map(str, content["datasets"]):
            for shots, seed in grid[:1] if method.once else grid:
                cell = Cell(method.plan, folder, dataset, shots, seed, not method.once)
                runs += protocol_runs(cell, content)
    return list({run.folder: run for run in runs}.values())  # a source serves all shots


def _folders(content: dict, output: Path) -> Iterator[tuple[str, str, Path]]:
    """Each method and backbone ("": the method's own), and the folder of their runs.

    Raises:
        UserError: two would share a folder.
    """
    owner: dict[str, str] = {}
    for name in content["methods"]:
        folder = _folder_name(name)
        if owner.setdefault(folder.lower(), name) != name:
            raise UserError(
                f"the methods {owner[folder.lower()]!r} and {name!r} would share the folder "
                f"{output / folder}; rename one"
            )
        for backbone in map(str, content.get("backbones") or [""]):
            place = output / folder / (_folder_name(backbone) if backbone else "")
            if owner.setdefault(f"{place}/".lower(), backbone) != backbone:
                raise UserError(
                    f"the backbones {owner[f'{place}/'.lower()]!r} and {backbone!r} would share "
                    f"the folder {place}; leave one out"
                )
            yield name, backbone, place


@dataclass(frozen=True)
class _Method:
    """A method of the sweep on one backbone.

    Args:
        unread: the nodes that it does not read; their overrides are left out.
    """

    content: dict
    shared: list[str]
    name: str
    backbone: str
    unread: set[str]

    @property
    def once(self) -> bool:
        """Whether neither shots nor seeds change anything, so that it has one run per dataset."""
        return bool(self.content["methods"][self.name].get("once"))

    def plan(self, dataset: str, shots: int, seed: int, place: Path) -> PlannedRun:
        """A run of the method in the folder ``place``."""
        method, protocol = self.content["methods"][self.name], self.content.get("protocol")
        by_shots = self.content["shots"]
        if self.once or not isinstance(by_shots, dict):
            by_shots = {}
        argv = [
            *("--trainer", method["trainer"]),
            *("--config-file", method["config"]),
            *("--dataset-config-file", str(self.content["dataset_files"][dataset])),
            *("--output-dir", str(place)),
            *("--seed", str(seed)),
            *(("--backbone", self.backbone) if self.backbone else ()),
            *(("--protocol", protocol) if protocol else ()),
            "--quiet",
            *("DATASET.NUM_SHOTS", str(shots)),
            *self._read(override_words(by_shots.get(shots))),
            *override_words(method.get("opts")),
            *self._read(self.shared),
        ]
        shots = 0 if self.once else shots
        return PlannedRun(self.name, dataset, shots, seed, place, tuple(argv), self.backbone)

    def _read(self, words: list[str]) -> list[str]:
        """``KEY VALUE`` words without those of nodes that the method does not read."""
        pairs = zip(words[::2], words[1::2], strict=True)
        return [word for pair in pairs if node_of(pair[0]) not in self.unread for word in pair]


def _folder_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name)


def _unread_nodes(content: dict, shared: list[str]) -> dict[str, set[str]]:
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
        file, own = method["config"], override_words(method.get("opts"))
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
