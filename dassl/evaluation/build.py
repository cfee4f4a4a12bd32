"""From ``cfg.TEST.EVALUATOR`` to an evaluator."""

from __future__ import annotations

from typing import Any

from dassl.config import CfgNode

from .base import EVALUATOR_REGISTRY, EvaluatorBase


def build_evaluator(
    cfg: CfgNode, lab2cname: dict[int, str] | None = None, space: Any = None
) -> EvaluatorBase:
    """The evaluator that the configuration names, or the one that the space asks for.

    Args:
        lab2cname: class name of each label.
        space: the :class:`~dassl.data.tasks.TaskSpace` of the logits.
    """
    name = getattr(space, "evaluator", "") or cfg.TEST.EVALUATOR
    if not cfg.TEST.TASK_GIVEN and name == "ClassificationMT":
        name = "ClassificationOfUnknownTask"
    return EVALUATOR_REGISTRY.get(name)(cfg, lab2cname=lab2cname, space=space)
