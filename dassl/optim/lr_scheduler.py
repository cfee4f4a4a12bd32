"""Learning rate schedules as functions of the number of steps done."""

from __future__ import annotations

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dassl.config import CfgNode
from dassl.utils.errors import UserError

COSINES = {"cosine": 1, "cosine_squared": 2}  # powers of (1 + cos) / 2


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LambdaLR:
    """The schedule that ``cfg.OPTIM`` describes, stepped once per epoch.

    The rate is a closed form of the number of steps (:func:`lr_at`). A parameter group with a
    rate of its own follows the same curve, scaled.

    Raises:
        UserError: a value out of range, or a schedule without the epochs it needs.
    """
    _check(optim_cfg)
    if optim_cfg.WARMUP_EPOCH >= optim_cfg.MAX_EPOCH > 0:
        print(
            f"OPTIM.WARMUP_EPOCH {optim_cfg.WARMUP_EPOCH} covers all of OPTIM.MAX_EPOCH "
            f"{optim_cfg.MAX_EPOCH}: the learning rate never leaves the warm-up"
        )
    optim_cfg = optim_cfg.clone()  # later changes to the configuration change no curve
    return LambdaLR(optimizer, partial(_factor, optim_cfg=optim_cfg))


def _factor(step: int, optim_cfg: CfgNode) -> float:
    return lr_at(step, optim_cfg) / optim_cfg.LR


def lr_at(step: int, optim_cfg: CfgNode) -> float:
    """Learning rate after ``step`` steps of the schedule.

    During the warm-up (step < WARMUP_EPOCH) it is WARMUP_CONS_LR if constant; if linear,
    WARMUP_MIN_LR at step 0 and LR * step / WARMUP_EPOCH after. Past MAX_EPOCH the cosine rises
    again.
    """
    warmup = max(optim_cfg.WARMUP_EPOCH, 0)
    if step < warmup:
        if optim_cfg.WARMUP_TYPE == "constant":
            return optim_cfg.WARMUP_CONS_LR
        return optim_cfg.LR * step / warmup if step else optim_cfg.WARMUP_MIN_LR
    t = step - warmup if optim_cfg.WARMUP_RECOUNT else step
    return optim_cfg.LR * _decay(t, optim_cfg)


def _decay(t: int, optim_cfg: CfgNode) -> float:
    """Factor on OPTIM.LR after ``t`` steps of the schedule."""
    if power := COSINES.get(optim_cfg.LR_SCHEDULER):
        return ((1 + math.cos(math.pi * t / optim_cfg.MAX_EPOCH)) / 2) ** power
    if optim_cfg.LR_SCHEDULER == "multi_step":
        return optim_cfg.GAMMA ** sum(t >= milestone for milestone in optim_cfg.STEPSIZE)
    if optim_cfg.LR_SCHEDULER == "single_step":
        return optim_cfg.GAMMA ** (t // _period(optim_cfg))
    return 1.0


def _period(optim_cfg: CfgNode) -> int:
    """Epochs between the drops of single_step; -1 means MAX_EPOCH, as in Dassl."""
    return optim_cfg.STEPSIZE[-1] if optim_cfg.STEPSIZE[-1] > 0 else optim_cfg.MAX_EPOCH


def _check(optim_cfg: CfgNode) -> None:
    optim_cfg.check("OPTIM")
    name, steps = optim_cfg.LR_SCHEDULER, optim_cfg.STEPSIZE
    if name in (*COSINES, "single_step") and optim_cfg.MAX_EPOCH < 1:
        raise UserError(
            f"OPTIM.LR_SCHEDULER {name} needs OPTIM.MAX_EPOCH of at least 1; got "
            f"{optim_cfg.MAX_EPOCH}"
        )
    if name == "multi_step" and not (steps and all(step > 0 for step in steps)):
        raise UserError(
            f"OPTIM.LR_SCHEDULER multi_step needs OPTIM.STEPSIZE such as (20, 40); got {steps}"
        )
    if name == "single_step" and len(steps) != 1:
        raise UserError(
            f"OPTIM.LR_SCHEDULER single_step needs one number in OPTIM.STEPSIZE; got {steps}"
        )
