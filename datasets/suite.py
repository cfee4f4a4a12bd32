"""Suite: several datasets of a YAML in one run."""

from __future__ import annotations

from pathlib import Path

from dassl.config import CfgNode
from dassl.data import DATASET_REGISTRY, dataset_class
from dassl.utils import UserError, unknown_name

from ._core.base import ImageTasks, TaskGroup

KEYS = ("NAME", "ROOT", "TASK_NAME", "TASK_NAMES", "TEMPLATE", "METRIC", "SPLIT", "MANIFEST")
KEYS += ("COLUMNS",)


@DATASET_REGISTRY.register()
class Suite(TaskGroup):
    """Datasets of your choice side by side: DATASET.MEMBERS lists them.

    DATASET.NAME may then be any new name, which stands in results and tables. An entry has some
    of the keys NAME (a dataset; ImageFolder if left out), ROOT (its data folder; relative to
    DATASET.ROOT, which it is if left out), TASK_NAME, TEMPLATE, METRIC, SPLIT, MANIFEST and
    COLUMNS.
    """

    @classmethod
    def member_configs(cls, cfg) -> list[tuple[type[ImageTasks], CfgNode]]:
        """The datasets in order."""
        entries, root = cfg.DATASET.MEMBERS, cfg.DATASET.ROOT
        if not entries:
            raise UserError(
                "the dataset Suite takes its datasets from DATASET.MEMBERS, as in  "
                "MEMBERS: [{NAME: OxfordPets}, {ROOT: my/images, TASK_NAME: kind of bolt}]"
            )
        members = []
        for i, entry in enumerate(entries):
            where = f"DATASET.MEMBERS[{i}]"
            options = _options(entry, where)
            options["ROOT"] = str(Path(root, Path(str(options.get("ROOT") or "")).expanduser()))
            own = cfg.clone()
            own.merge_from_dict({"DATASET": options}, where=f"{where}: ")
            members.append((dataset_class(own), own))
        return members


def _options(entry: object, where: str) -> dict:
    """An entry as keys of DATASET."""
    if not isinstance(entry, dict):
        raise UserError(f"{where} must hold keys such as NAME and ROOT, but is {entry!r}")
    for key in entry:
        if key not in KEYS:
            raise unknown_name(f"key of {where}", str(key), KEYS)
    options = {"NAME": "ImageFolder", "MEMBERS": (), **entry}
    if "TASK_NAME" in options:
        options["TASK_NAMES"] = (options.pop("TASK_NAME"),)
    if options["NAME"] == "Suite":
        raise UserError(f"{where}: a suite cannot hold a Suite; list its members here instead")
    return options
