"""What an evaluator is, and the registry of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.utils import Registry

EVALUATOR_REGISTRY = Registry("evaluator")
EVALUATOR_REGISTRY.__doc__ = """Evaluators by name; a registered class is built with
``cls(cfg, lab2cname=..., space=...)``."""


class EvaluatorBase:
    """Takes in batches of logits and gives metrics: ``reset``, ``process`` ..., ``evaluate``."""

    # set by evaluate, for the run's record: the results of each task, and over them
    tasks: list[dict[str, Any]] = []
    suite: dict[str, Any] = {}

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, space: Any = None):
        self.cfg, self.lab2cname, self.space = cfg, lab2cname or {}, space

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError(f"{type(self).__name__} must override reset")

    def process(
        self, logits: torch.Tensor, label: torch.Tensor, task: torch.Tensor | None = None
    ) -> None:
        """Take in a batch: logits (B, C), label (B,) within the task, task (B,)."""
        raise NotImplementedError(f"{type(self).__name__} must override process")

    def evaluate(self) -> OrderedDict[str, float]:
        """Print and return the metrics in percent, the one that chooses models first."""
        raise NotImplementedError(f"{type(self).__name__} must override evaluate")
