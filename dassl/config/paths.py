"""``~`` in the keys that hold paths."""

from __future__ import annotations

from os.path import expanduser

from dassl.utils.errors import UserError

from .node import CfgNode

PATH_KEYS = (
    "OUTPUT_DIR",
    "RESUME",
    "DATASET.ROOT",
    "DATASET.MANIFEST",
    "DATALOADER.OLD_DATA_PATH",
    "DATALOADER.NEW_DATA_PATH",
    "MODEL.INIT_WEIGHTS",
    "FEATURES.DIR",
)


def expand_home(cfg: CfgNode) -> None:
    """Replace ``~`` by the user's home folder in every path of a configuration, in place."""
    for key in PATH_KEYS:
        node, name = cfg.find(key)
        node[name] = expanduser(node[name])
    if strange := [name for name in cfg.MODEL.INIT_FROM if not isinstance(name, str)]:
        raise UserError(f"MODEL.INIT_FROM takes a list of folders; got {strange[0]!r} in it")
    cfg.MODEL.INIT_FROM = tuple(map(expanduser, cfg.MODEL.INIT_FROM))
    cfg.DATASET.MEMBERS = tuple(
        {**member, "ROOT": expanduser(member["ROOT"])}
        if isinstance(member, dict) and isinstance(member.get("ROOT"), str)
        else member
        for member in cfg.DATASET.MEMBERS
    )
