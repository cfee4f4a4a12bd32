"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from dassl.config import CfgNode
from dassl.utils.errors import UserError


def build_optimizer(
    model: nn.Module | Iterable[torch.Tensor | dict],
    optim_cfg: CfgNode,
    param_groups: Iterable[torch.Tensor | dict] | None = None,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """The optimizer that ``cfg.OPTIM`` names, over the tensors that require gradients.

    Args:
        model: a module, or parameters, or groups of them (dicts with ``params``).
        param_groups: overrides the model's parameters.
        fused: step all tensors in one kernel; equal up to rounding.

    Raises:
        UserError: a value out of range, a learning rate of 0, or nothing to train.
    """
    _check(optim_cfg)
    if param_groups is None:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    groups = _trainable(param_groups)
    if not groups:
        raise UserError(
            "there is nothing to train: no parameter requires a gradient; a method that trains "
            "nothing needs no optimizer"
        )
    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    common["fused"] = fused or None  # None is torch's choice
    if optim_cfg.NAME == "sgd":
        return torch.optim.SGD(
            groups,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    cls = torch.optim.Adam if optim_cfg.NAME == "adam" else torch.optim.AdamW
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    return cls(groups, betas=betas, eps=optim_cfg.ADAM_EPS, **common)


def _check(optim_cfg: CfgNode) -> None:
    optim_cfg.check("OPTIM")
    if not optim_cfg.LR > 0:
        raise UserError(f"OPTIM.LR takes a number above 0 to train; got {optim_cfg.LR}")
    nesterov = optim_cfg.NAME == "sgd" and optim_cfg.SGD_NESTEROV
    if nesterov and (not optim_cfg.MOMENTUM or optim_cfg.SGD_DAMPNING):
        raise UserError(
            "OPTIM.SGD_NESTEROV needs OPTIM.MOMENTUM above 0 and OPTIM.SGD_DAMPNING 0; got "
            f"{optim_cfg.MOMENTUM} and {optim_cfg.SGD_DAMPNING}"
        )


def _trainable(items: Iterable[torch.Tensor | dict]) -> list[dict]:
    """Groups with only the tensors that require gradients; groups left empty are dropped."""
    items = list(items)
    loose = [item for item in items if not isinstance(item, dict)]
    groups = [{"params": loose}, *(item for item in items if isinstance(item, dict))]
    out = []
    for group in groups:
        params = group["params"]
        params = [params] if isinstance(params, torch.Tensor) else list(params)
        params = [p for p in params if p.requires_grad]
        if params:
            out.append({**group, "params": params})
    return out
