"""Evaluators: from logits to metrics, per task and over a suite."""

from .answers import Answers
from .build import EVALUATOR_REGISTRY, build_evaluator
from .evaluator import Classification, ClassificationMT, EvaluatorBase, metric_of
from .report import format_report, summarize
from .retrieval import Retrieval

__all__ = [
    "EVALUATOR_REGISTRY",
    "Answers",
    "Classification",
    "ClassificationMT",
    "EvaluatorBase",
    "Retrieval",
    "build_evaluator",
    "format_report",
    "metric_of",
    "summarize",
]
