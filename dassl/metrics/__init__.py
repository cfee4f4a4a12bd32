"""Metrics of classification and of answers to questions."""

from .accuracy import compute_accuracy, task_metric

__all__ = ["compute_accuracy", "task_metric"]
