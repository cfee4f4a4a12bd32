"""Learning rate schedules as functions of the number of steps done."""

from __future__ import annotations

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dassl.config import CfgNode
from dassl.utils import UserError, unknown_name

SCHEDULES = ("cosine", "multi_step", "single_step", "constant")
WARMUPS = ("linear", "constant")


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LambdaLR:
    """The schedule that ``cfg.OPTIM`` describes, meant to be stepped once per epoch.

    The rate is a closed form of the number of steps (:func:`lr_at`), so it is right however often
    it is stepped. A parameter group with a rate of its own follows the same curve, scaled.
    """
    _check(optim_cfg)
    optim_cfg = optim_cfg.clone()  # later changes to the configuration change no curve
    return LambdaLR(optimizer, partial(_factor, optim_cfg=optim_cfg))


def _factor(step: int, optim_cfg: CfgNode) -> float:
    return lr_at(step, optim_cfg) / optim_cfg.LR


def lr_at(step: int, optim_cfg: CfgNode) -> float:
    """Learning rate after ``step`` steps of the schedule.

    During the warm-up (step < WARMUP_EPOCH) it is WARMUP_CONS_LR if constant; if linear,
    WARMUP_MIN_LR at step 0 and LR * step / WARMUP_EPOCH after. Past MAX_EPOCH the cosine goes on:
    it rises again.
    """
    warmup = max(optim_cfg.WARMUP_EPOCH, 0)
    if step < warmup:
        if optim_cfg.WARMUP_TYPE == "constant":
            return optim_cfg.WARMUP_CONS_LR
        return optim_cfg.LR * step / warmup if step else optim_cfg.WARMUP_MIN_LR
    t = step - warmup if optim_cfg.WARMUP_RECOUNT else step
    return optim_cfg.LR * _decay(t, optim_cfg)


def _decay(t: int, optim_cfg: CfgNode) -> float:
    """The part of the full rate that is left after ``t`` steps."""
    if optim_cfg.LR_SCHEDULER == "cosine":
        return (1 + math.cos(math.pi * t / optim_cfg.MAX_EPOCH)) / 2
    if optim_cfg.LR_SCHEDULER == "multi_step":
        return optim_cfg.GAMMA ** sum(t >= milestone for milestone in optim_cfg.STEPSIZE)
    if optim_cfg.LR_SCHEDULER == "single_step":
        return optim_cfg.GAMMA ** (t // _every(optim_cfg))
    return 1.0


def _every(optim_cfg: CfgNode) -> int:
    """Epochs between the drops of single_step; as in Dassl, -1 means all of them."""
    return optim_cfg.STEPSIZE[-1] if optim_cfg.STEPSIZE[-1] > 0 else optim_cfg.MAX_EPOCH


def _check(optim_cfg: CfgNode) -> None:
    name, steps = optim_cfg.LR_SCHEDULER, optim_cfg.STEPSIZE
    if name not in SCHEDULES:
        raise unknown_name("learning rate schedule", name, SCHEDULES)
    if optim_cfg.WARMUP_EPOCH > 0 and optim_cfg.WARMUP_TYPE not in WARMUPS:
        raise unknown_name("warm-up", optim_cfg.WARMUP_TYPE, WARMUPS)
    if name in ("cosine", "single_step") and optim_cfg.MAX_EPOCH < 1:
        raise UserError(f"OPTIM.MAX_EPOCH must be at least 1, but is {optim_cfg.MAX_EPOCH}")
    if name == "multi_step" and not (steps and all(step > 0 for step in steps)):
        raise UserError(f"multi_step needs OPTIM.STEPSIZE such as (20, 40), but got {steps}")
    if name == "single_step" and len(steps) != 1:
        raise UserError(f"single_step needs one number in OPTIM.STEPSIZE, but got {steps}")
