"""Metrics of classification; imported on first use."""

from typing import TYPE_CHECKING

from dassl.utils.lazy import lazy_imports

if TYPE_CHECKING:
    from .accuracy import compute_accuracy, task_metric

__all__ = ["BINS", "compute_accuracy", "task_metric"]

BINS = 15  # of equal width, as usual for the ECE: https://arxiv.org/abs/1706.04599

__getattr__, __dir__ = lazy_imports(__name__)
