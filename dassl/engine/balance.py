"""How the tasks of a joint training are balanced: by sampling, and by weights in the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dassl.config import CfgNode
from dassl.config.defaults import TASK_SAMPLERS
from dassl.utils import UserError

if TYPE_CHECKING:
    from .base import TrainerBase


def balance_of(cfg: CfgNode) -> dict[str, Any]:
    """The rules of a run that weigh or sample tasks, for its record; empty by default."""
    loading, optim = cfg.DATALOADER.TRAIN_X, cfg.OPTIM
    rules: dict[str, Any] = {}
    if loading.SAMPLER in TASK_SAMPLERS:
        rules |= {"sampler": loading.SAMPLER, "epoch": loading.EPOCH}
        if loading.SAMPLER == "TemperatureTaskSampler":
            rules["temperature"] = loading.TEMPERATURE
    if optim.TASK_WEIGHTS != "none":
        rules["task_weights"] = optim.TASK_WEIGHTS
        if optim.TASK_WEIGHTS == "given":
            rules["values"] = list(optim.TASK_WEIGHT_VALUES)
        if optim.TASK_WEIGHTS == "uncertainty":
            rules["rate"] = optim.TASK_WEIGHT_LR
    return rules


def refuse_balance(cfg: CfgNode, trainer_cls: type[TrainerBase]) -> None:
    """Refuse rules of balance for a trainer on which they would have no effect.

    Raises:
        UserError: it trains each task separately, or computes its loss by itself.
    """
    rules = balance_of(cfg)
    name = trainer_cls.__name__
    if rules and trainer_cls.suite != "joint":
        key = "DATALOADER.TRAIN_X.SAMPLER" if "sampler" in rules else "OPTIM.TASK_WEIGHTS"
        value = rules.get("sampler") or rules["task_weights"]
        raise UserError(
            f"{key} {value} balances tasks that are trained jointly, but {name} trains each task "
            "separately; choose a joint method, such as MTCoOp or MTCoOpHard, or leave out the key"
        )
    if "task_weights" in rules and not trainer_cls.weighs_tasks:
        raise UserError(
            f"OPTIM.TASK_WEIGHTS {rules['task_weights']} has no effect on {name}, which computes "
            "its loss by itself; call self.task_weights(losses, task) there and set the class's "
            "attribute weighs_tasks to True, or leave out the key"
        )
