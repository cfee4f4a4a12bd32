"""Evaluation of answers to questions on images against those of human annotators."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.evaluation.base import EVALUATOR_REGISTRY, EvaluatorBase
from dassl.evaluation.summary import format_report, percent, summarize
from dassl.utils import UserError, counted


@EVALUATOR_REGISTRY.register()
class Answers(EvaluatorBase):
    """VQA accuracy, and the share of questions answered with their most frequent answer (top-1).

    The answer is the candidate with the highest logit. If the most frequent answer of a question is
    no candidate, top-1 counts the question as wrong; VQA accuracy counts the annotators who agree.
    """

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, space: Any = None):
        super().__init__(cfg, lab2cname, space)
        if getattr(space, "evaluator", "") != "Answers":
            raise UserError("TEST.EVALUATOR Answers is for questions on images")
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._agreed = 0.0  # sum of the VQA accuracies
        self._right = self._total = self._outside = 0

    def process(
        self, logits: torch.Tensor, label: torch.Tensor, task: torch.Tensor | None = None
    ) -> None:
        """Take in a batch: logits (B, C), label (B,) numbers of items."""
        about = self.space.tasks[0]
        for given, item in zip(logits.argmax(1).tolist(), label.tolist(), strict=True):
            votes, target = about.votes[item], about.target[item]
            self._agreed += vqa_accuracy(votes.get(given, 0), about.people[item])
            self._right += given == target
            self._outside += target < 0
            self._total += 1

    def evaluate(self) -> OrderedDict[str, float]:
        """Print the report; return overall_metric, which is the VQA accuracy, and both by name."""
        if not self._total:
            raise UserError("there is nothing to evaluate: no question was processed")
        sums = {"VQA accuracy": self._agreed, "top-1": self._right}
        self.tasks = []
        for name, correct in sums.items():
            about = {"id": len(self.tasks), "name": name, "group": self.space.tasks[0].group}
            about |= {"metric": name, "value": 100 * correct / self._total}
            self.tasks.append({**about, "correct": round(correct, 6), "total": self._total})
        self.suite = {**summarize(self.tasks[:1]), "metric": "VQA accuracy"}
        lines = format_report(self.tasks[:1], self.suite, per_task=False)
        lines += [f"* {task['name']}: {percent(task['value'])}" for task in self.tasks]
        if self._outside:
            lines.append(
                f"* most frequent answer not among the candidates, missed by top-1: "
                f"{counted(self._outside, 'question')}"
            )
        print("\n".join(lines))
        each = {task["name"]: task["value"] for task in self.tasks}
        return OrderedDict({"overall_metric": each["VQA accuracy"], **each})


def vqa_accuracy(same: int, people: int) -> float:
    """VQA accuracy, from 0 to 1, of an answer that ``same`` of ``people`` annotators gave.

    The mean, over leaving out each annotator once, of min(remaining ones who gave it / 3, 1):
    https://visualqa.org/evaluation.html (with ten annotators).
    """
    if not same:
        return 0.0
    with_own = same * min((same - 1) / 3, 1.0)  # an annotator who gave it is left out
    without = (people - same) * min(same / 3, 1.0)
    return (with_own + without) / people
