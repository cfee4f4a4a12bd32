"""Metrics of classification."""

from .accuracy import compute_accuracy, task_metric

__all__ = ["compute_accuracy", "task_metric"]
