"""Recall of images by texts and of texts by images."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.evaluation.base import EVALUATOR_REGISTRY, EvaluatorBase
from dassl.evaluation.summary import format_report, mean, summarize
from dassl.utils import UserError

RANKS = (1, 5, 10)


@EVALUATOR_REGISTRY.register()
class Retrieval(EvaluatorBase):
    """R@1, R@5 and R@10 in both directions, over all images and all texts of a split.

    An image is found by a text, or a text of it by the image, if fewer than k wrong ones score at
    least as high: a tie counts against the method. Beside the scores of the right pairs only the
    ten best wrong ones of each text are kept, whatever the number of images.
    """

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, space: Any = None):
        super().__init__(cfg, lab2cname, space)
        if getattr(space, "evaluator", "") != "Retrieval":
            raise UserError("TEST.EVALUATOR Retrieval is for pairs of images and texts")
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        num = self.space.num_classes
        self._right = torch.full((num,), float("-inf"))  # (C,) score of each text's own image
        self._wrong = torch.full((num, max(RANKS)), float("-inf"))  # (C, 10) best other images
        self._ranks: list[torch.Tensor] = []  # of the best own text of each image

    def process(
        self, logits: torch.Tensor, label: torch.Tensor, task: torch.Tensor | None = None
    ) -> None:
        """Take in a batch: logits (B, C), label (B,) numbers of images of one split."""
        lowest = torch.finfo(torch.float32).min  # a score that is no number finds nothing
        logits, label = logits.float().cpu().nan_to_num(lowest, torch.inf, lowest), label.cpu()
        image, part = self.space.image, self.space.part
        columns = (part[image] == part[label[0]]).nonzero()[:, 0]
        scores = logits[:, columns]  # (B, C of the split)
        own = image[columns] == label[:, None]
        right = scores.masked_fill(~own, float("-inf"))
        wrong = scores.masked_fill(own, float("-inf"))
        self._ranks.append((wrong >= right.amax(1, keepdim=True)).sum(1))
        self._right[columns] = torch.maximum(self._right[columns], right.amax(0))
        best = torch.cat([self._wrong[columns], wrong.T], dim=1)
        self._wrong[columns] = best.topk(max(RANKS), dim=1).values

    def evaluate(self) -> OrderedDict[str, float]:
        """Print the report; return overall_metric, the mean of the six recalls, and each."""
        if not self._ranks:
            raise UserError("there is nothing to evaluate: no image was processed")
        seen = self._right > float("-inf")  # texts of the split
        ranks = {
            "image to text": torch.cat(self._ranks),
            "text to image": (self._wrong[seen] >= self._right[seen, None]).sum(1),
        }
        self.tasks = []
        for direction, found in ranks.items():
            for k in RANKS:
                correct, total = int((found < k).sum()), len(found)
                about = {"id": len(self.tasks), "name": f"{direction} R@{k}", "metric": f"R@{k}"}
                about |= {"group": self.space.tasks[0].group, "value": 100 * correct / total}
                self.tasks.append({**about, "correct": correct, "total": total})
        self.suite = summarize(self.tasks)
        print("\n".join(format_report(self.tasks, self.suite, self.cfg.TEST.PER_TASK_RESULT)))
        each = {task["name"]: task["value"] for task in self.tasks}
        return OrderedDict({"overall_metric": mean(list(each.values())), **each})
