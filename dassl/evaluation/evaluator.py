"""Evaluators. They keep counts per class, not predictions: their memory does not grow."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.data.tasks import Task
from dassl.metrics import task_metric
from dassl.utils import UserError, atomic_path

from .base import EVALUATOR_REGISTRY, EvaluatorBase
from .summary import format_report, mean, percent, summarize


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro-averaged F1 of a single task."""

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, space: Any = None):
        super().__init__(cfg, lab2cname, space)
        if space is not None and len(space.tasks) > 1:
            raise UserError(
                f"TEST.EVALUATOR Classification takes one task, but the suite has "
                f"{len(space.tasks)}; use ClassificationMT"
            )
        if space is not None and space.tasks[0].kind.own_measures:
            raise UserError(
                "TEST.EVALUATOR Classification measures single labels, but the task "
                f"{space.tasks[0].name!r} is {space.tasks[0].kind.name}; use ClassificationMT"
            )
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._matrix: torch.Tensor | None = None  # (C, C): images by class and prediction

    def process(
        self, logits: torch.Tensor, label: torch.Tensor, task: torch.Tensor | None = None
    ) -> None:
        """Count a batch: logits (B, C), label (B,)."""
        num = logits.shape[1]
        _check_labels(label, torch.full_like(label, num))
        cells = label.long() * num + logits.argmax(1).to(label.device)
        counts = torch.bincount(cells, minlength=num * num).view(num, num)
        self._matrix = counts if self._matrix is None else self._matrix + counts

    def evaluate(self) -> OrderedDict[str, float]:
        """Print and return accuracy, error rate and macro F1 (over the classes with images)."""
        if self._matrix is None or not self._matrix.sum():
            raise UserError("there is nothing to evaluate: no image was processed")
        matrix = self._matrix.double().cpu()
        hits, support, predicted = matrix.diag(), matrix.sum(1), matrix.sum(0)
        f1 = (2 * hits / (support + predicted).clamp(min=1))[support > 0]
        total, correct = int(support.sum()), int(hits.sum())
        accuracy = 100 * correct / total
        results = OrderedDict(
            accuracy=accuracy, error_rate=100 - accuracy, macro_f1=100 * f1.mean().item()
        )
        print(
            f"=> result\n* total: {total:,}\n* correct: {correct:,}\n* accuracy: {accuracy:.2f}%\n"
            f"* error: {100 - accuracy:.2f}%\n* macro_f1: {results['macro_f1']:.2f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._per_class(hits, support)
        if self.cfg.TEST.COMPUTE_CMAT:
            path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
            with atomic_path(path) as temporary:
                torch.save(matrix / support.clamp(min=1)[:, None], temporary)
            print(f"Confusion matrix (rows sum to 1) is saved to {path}")
        self._describe(accuracy, correct, total)
        return results

    def _per_class(self, hits: torch.Tensor, support: torch.Tensor) -> float | None:
        print("=> per-class result")
        recalls = _print_classes(hits, support, self.lab2cname)
        print(f"* average: {mean(recalls):.2f}%")
        return mean(recalls)

    def _describe(self, accuracy: float, correct: int, total: int) -> None:
        """The same as ClassificationMT leaves for the run's record."""
        task = self.space.tasks[0] if self.space is not None else None
        about = {"id": 0, "name": task.name if task else "", "group": task.group if task else ""}
        about |= {"metric": "overall_acc", "value": accuracy, "correct": correct, "total": total}
        self.tasks = [about]
        self.suite = summarize(self.tasks)


@EVALUATOR_REGISTRY.register()
class ClassificationMT(EvaluatorBase):
    """Every task by its own metric, the suite by the mean over tasks.

    An image is classified among the classes of its own task. ``overall_acc`` is the share of
    images classified right, ``mean_acc`` the mean over classes of that share (classes without
    test images left out). A kind of label may add measures or replace the metric. After
    :meth:`evaluate`, ``tasks`` and ``suite`` hold the numbers.
    """

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, space: Any = None):
        super().__init__(cfg, lab2cname, space)
        if space is None:
            raise ValueError("ClassificationMT needs the task space: build_evaluator(..., space=)")
        if cfg.TEST.COMPUTE_CMAT:
            raise UserError("TEST.COMPUTE_CMAT needs TEST.EVALUATOR Classification")
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        num = self.space.num_classes
        self._hits = torch.zeros(num, dtype=torch.long)  # (C,) images classified right
        self._support = torch.zeros(num, dtype=torch.long)  # (C,) images
        # of each batch, for kinds that measure all images at once: the task's logits and labels
        kinds = enumerate(self.space.kinds)
        self._outputs: dict[int, list] = {t: [] for t, kind in kinds if kind.own_measures}

    def process(
        self, logits: torch.Tensor, label: torch.Tensor, task: torch.Tensor | None = None
    ) -> None:
        """Count a batch: logits (B, C), label (B,) within the task, task (B,).

        ``task`` may be left out where there is only one.
        """
        num_tasks, num = len(self.space.tasks), self.space.num_classes
        if logits.shape[1] != num:
            raise ValueError(f"logits have {logits.shape[1]} columns for {num} classes")
        if task is None:
            if num_tasks > 1:
                raise UserError(
                    f"a suite of {num_tasks} tasks can only be evaluated with the task of each "
                    "image: evaluator.process(logits, label, task)"
                )
            task = torch.zeros_like(label)
        task, label = task.long().to(logits.device), label.long().to(logits.device)
        self._keep_outputs(logits, label, task)
        if self.space.set_tasks:
            of_class = self.space.has_class(task)
            logits, label, task = logits[of_class], label[of_class], task[of_class]
        _check_labels(label, torch.tensor(self.space.sizes, device=task.device)[task])
        target = self.space.column_of(label, task)  # (B,)
        right = target[self.space.own_logits(logits, task).argmax(1) == target]
        self._support = self._support.to(target.device) + target.bincount(minlength=num)
        self._hits = self._hits.to(target.device) + right.bincount(minlength=num)

    def _keep_outputs(self, logits: torch.Tensor, label: torch.Tensor, task: torch.Tensor) -> None:
        """Keep what the kinds measure that need all images at once."""
        for t, batches in self._outputs.items():
            mine = task == t
            own = logits[mine][:, self.space.columns(t)]
            batches.append((own.float().cpu(), label[mine].cpu()))

    def evaluate(self) -> OrderedDict[str, float]:
        """Print the report; return overall_metric (the mean over all tasks) and each group's."""
        hits, support = self._hits.cpu(), self._support.cpu()
        self.tasks = [self._task_result(t, hits, support) for t in range(len(self.space.tasks))]
        self.suite = summarize(self.tasks)
        overall = mean([task["value"] for task in self.tasks])
        if overall is None:
            raise UserError(
                "there is nothing to evaluate: no image was processed, or none has a class of its "
                "multi-label task"
            )
        print("\n".join(format_report(self.tasks, self.suite, self.cfg.TEST.PER_TASK_RESULT)))
        if self.cfg.TEST.PER_CLASS_RESULT:
            self._print_classes(hits, support)
        groups = {k: v for k, v in self.suite["groups"].items() if v is not None}
        return OrderedDict({"overall_metric": overall, **groups})

    def _task_result(self, t: int, hits: torch.Tensor, support: torch.Tensor) -> dict[str, Any]:
        task, columns = self.space.tasks[t], self.space.columns(t)
        hits, support = hits[columns], support[columns]
        correct, total = int(hits.sum()), int(support.sum())
        metric = metric_of(self.cfg, task)
        value = task_metric(metric, hits, support).item() if total else None
        about = {"id": t, "name": task.name, "group": task.group, "metric": metric}
        about |= {"value": value, "correct": correct, "total": total}
        if not self._outputs.get(t):
            return about
        logits, label = map(torch.cat, zip(*self._outputs[t], strict=True))
        return about | (task.kind.measures(logits, label) if len(label) else {})

    def _print_classes(self, hits: torch.Tensor, support: torch.Tensor) -> None:
        for t, task in enumerate(self.space.tasks):
            columns = self.space.columns(t)
            print(f"=> per-class result of task {t} ({task.name})")
            if not task.kind.is_set:
                _print_classes(hits[columns], support[columns], dict(enumerate(task.classnames)))
            elif self._outputs[t]:
                self._print_precisions(t)

    def _print_precisions(self, t: int) -> None:
        """A line per class of a task whose images have several."""
        task = self.space.tasks[t]
        logits, label = map(torch.cat, zip(*self._outputs[t], strict=True))
        images = task.kind.targets(label, len(task.classnames)).sum(dim=0).tolist()
        precisions = task.kind.class_values(logits, label)
        for c, name in enumerate(task.classnames):
            print(f"* class: {c} ({name})\ttotal: {images[c]:,.0f}\tAP: {percent(precisions[c])}")


def metric_of(cfg: CfgNode, task: Task) -> str:
    """The metric by which ``TEST.METRIC`` has a task judged."""
    return task.kind.metric(task.metric if cfg.TEST.METRIC == "per_task" else "overall_acc")


def _print_classes(
    hits: torch.Tensor, support: torch.Tensor, names: dict[int, str]
) -> list[float | None]:
    """A line per class; the recalls in percent, None for a class without images."""
    recalls = []
    for label, (correct, total) in enumerate(zip(hits.tolist(), support.tolist(), strict=True)):
        recall = 100 * correct / total if total else None
        recalls.append(recall)
        shown = "n/a" if recall is None else f"{recall:.2f}%"
        print(
            f"* class: {label} ({names.get(label, '')})\ttotal: {int(total):,}\t"
            f"correct: {int(correct):,}\tacc: {shown}"
        )
    return recalls


def _check_labels(label: torch.Tensor, sizes: torch.Tensor) -> None:
    wrong = (label < 0) | (label >= sizes)
    if wrong.any():
        raise ValueError(
            f"label {int(label[wrong][0])} of a task with {int(sizes[wrong][0])} classes"
        )
