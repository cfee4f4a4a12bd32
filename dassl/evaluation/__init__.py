"""Evaluators: from logits to metrics, per task and over a suite."""

from .base import EVALUATOR_REGISTRY, EvaluatorBase
from .build import build_evaluator
from .evaluator import Classification, ClassificationMT, metric_of
from .summary import format_report, summarize

__all__ = [
    "EVALUATOR_REGISTRY",
    "Classification",
    "ClassificationMT",
    "EvaluatorBase",
    "build_evaluator",
    "format_report",
    "metric_of",
    "summarize",
]
