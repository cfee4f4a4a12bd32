"""From ``cfg.TEST.EVALUATOR`` to an evaluator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dassl.config import CfgNode
from dassl.utils import Registry

if TYPE_CHECKING:
    from .evaluator import EvaluatorBase

EVALUATOR_REGISTRY = Registry("evaluator")
EVALUATOR_REGISTRY.__doc__ = """Evaluators by name; a registered class is built with
``cls(cfg, lab2cname=..., space=...)``."""


def build_evaluator(
    cfg: CfgNode, lab2cname: dict[int, str] | None = None, space: Any = None
) -> EvaluatorBase:
    """The evaluator that the configuration names, or the one that the space asks for.

    Args:
        lab2cname: class name of each label.
        space: the :class:`~dassl.data.tasks.TaskSpace` of the logits.
    """
    name = getattr(space, "evaluator", "") or cfg.TEST.EVALUATOR
    return EVALUATOR_REGISTRY.get(name)(cfg, lab2cname=lab2cname, space=space)
