"""The configuration of a run: defaults, the trainers' own nodes, YAML files and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dassl.config import CfgNode, expand_home, get_cfg_default
from dassl.utils import UserError
from dassl.utils.errors import nearest

from .registry import TRAINER_REGISTRY


def build_cfg(files: Sequence[str | Path], overrides: Sequence) -> CfgNode:
    """The frozen configuration of a run, without the nodes that it does not use.

    Args:
        files: YAML files, merged in this order.
        overrides: ``[KEY, VALUE, KEY, VALUE, ...]``, merged last.

    Raises:
        UserError: an unknown key, a value that a key does not take, no trainer, or an override of
            another method's key. A YAML may hold such keys, since methods can share it.
    """
    cfg = _with_all_nodes()
    for file in files:
        cfg.merge_from_file(file)
    cfg.merge_from_list(list(overrides))
    expand_home(cfg)
    _drop_unused_nodes(cfg)
    _refuse_dropped(cfg, overrides[::2])
    cfg.freeze()
    return cfg


def check_dataset_chosen(cfg: CfgNode) -> None:
    """Refuse a configuration without a dataset.

    Raises:
        UserError: it names the flag and the key that choose one.
    """
    if not cfg.DATASET.NAME:
        raise UserError(
            "no dataset chosen: give one with --dataset-config-file "
            "configs/datasets/digits7.yaml, or DATASET.NAME Digits7; --list shows their names"
        )


def _with_all_nodes() -> CfgNode:
    """The defaults, with the nodes of all trainers."""
    cfg = get_cfg_default()
    for name in TRAINER_REGISTRY.registered_names():
        TRAINER_REGISTRY.get(name).add_config(cfg)
    return cfg


def node_of(key: str) -> str:
    """The method's node that a key is in, such as COOP; "" for the keys of all methods."""
    first, _, rest = key.partition(".")
    return rest.partition(".")[0] if first == "TRAINER" else ""


def nodes_read(
    trainer: str, file: str | Path, own: Sequence[str], shared: Sequence[str]
) -> set[str]:
    """The nodes under ``cfg.TRAINER`` that runs of a method read; empty if it declares none.

    Args:
        file: the method's YAML.
        own: overrides ``[KEY, VALUE, ...]`` of this method, merged after it.
        shared: those of all methods; keys of nodes that do not exist are left out.
    """
    if not TRAINER_REGISTRY.get(trainer).KEY:
        return set()
    cfg = _with_all_nodes()
    cfg.merge_from_file(file)
    known = [
        word
        for key, value in zip(shared[::2], shared[1::2], strict=True)
        if node_of(key) in ("", *cfg.TRAINER)
        for word in (key, value)
    ]
    cfg.merge_from_list(["TRAINER.NAME", trainer, *own, *known])
    _drop_unused_nodes(cfg)
    return set(cfg.TRAINER) - {"NAME"}


def _refuse_dropped(cfg: CfgNode, keys: Sequence[str]) -> None:
    """Refuse overrides below a node of cfg.TRAINER that was dropped, as they have no effect."""
    for key in map(str, keys):
        if node_of(key) in ("", *cfg.TRAINER):
            continue
        read = [name for name in cfg.TRAINER if name != "NAME"]
        known = {name: f"TRAINER.{node}.{name}" for node in read for name in cfg.TRAINER[node]}
        near = nearest(key.rpartition(".")[2], known)
        raise UserError(
            f"{key} has no effect with {cfg.TRAINER.NAME}, which reads "
            f"{' and '.join(f'TRAINER.{node}' for node in read)}"
            f"{f'; did you mean {known[near]}?' if near else ''}"
        )


def _drop_unused_nodes(cfg: CfgNode) -> None:
    """Drop the keys of other methods and datasets, so that new ones keep the hashes of old runs."""
    if not cfg.TRAINER.NAME:
        raise UserError("no trainer chosen: give one with --trainer; --list shows their names")
    if keys := TRAINER_REGISTRY.get(cfg.TRAINER.NAME).config_keys(cfg):
        cfg.TRAINER = CfgNode({name: cfg.TRAINER[name] for name in ("NAME", *keys)})
    from dassl.data.datasets import dataset_class  # imports torch

    if not (cfg.DATASET.NAME and dataset_class(cfg).asks_questions):
        del cfg.DATASET["QUESTIONS"]
