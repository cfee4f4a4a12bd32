"""Kinds of label: what an image's label in a task means, its loss and its measures.

- A :class:`~dassl.data.tasks.Task` has a kind; code that depends on the meaning of a label asks it.
- A label is always one whole number, so that splits, batches and stored features are alike for all
  kinds. It is a class of the task, or, of a multi-label task, the number of a set of classes.
- ``loss`` gives the loss of each image of a batch; :class:`~dassl.data.tasks.TaskSpace` combines
  them over tasks.
- ``measures`` gives the entries of the task in ``results.json`` that depend on the kind.
- ``classes_of`` gives the classes that an image counts for in a few-shot draw.
- ``predict`` gives the classes shown for a new image.
- ``restrict`` gives the kind and the labels when only some of the classes are used.
- A method whose own loss cannot take a kind says so in its attribute ``refused_labels``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.metrics.label_measures import average_precisions, mean_absolute_error, set_measures
from dassl.utils import UserError, unknown_name

if TYPE_CHECKING:
    import numpy as np

MULTI_LABEL_LOSSES = ("binary", "asymmetric")
# Of the asymmetric loss, as published: https://arxiv.org/abs/2009.14119
FOCUS, MARGIN = 4, 0.05
AUTO = "auto"  # OPTIM.LOGIT_BIAS: MultiLabel.starting_bias of the training images

Classes = tuple[list[list[int]], list[list[float]]]  # of each image, and their probabilities


@dataclass(unsafe_hash=True)
class SingleLabel:
    """Each image has one class: cross-entropy, accuracy."""

    name: ClassVar[str] = "single_label"
    is_set: ClassVar[bool] = False  # whether labels are numbers of sets of classes
    own_measures: ClassVar[bool] = False  # whether measures() needs the logits of all test images

    def classes_of(self, label: int) -> tuple[int, ...]:
        """The classes of a label."""
        return (label,)

    def label_names(self, classnames: Sequence[str]) -> Sequence[str]:
        """Each label in words."""
        return classnames

    def metric(self, chosen: str) -> str:
        """The metric of a task for which ``chosen`` is configured."""
        return chosen

    def restrict(self, span: range) -> tuple[SingleLabel, dict[int, int]]:
        """The kind with the classes ``span`` only, and its labels by the present ones."""
        return self, {label: label - span.start for label in span}

    def loss(
        self, logits: Tensor, label: Tensor, class_mask: Tensor, label_smoothing: float = 0.0
    ) -> Tensor:
        """Cross-entropy (B,) of each image among the classes of the mask.

        Args:
            logits: (B, C) of this task's classes, fp32.
            label: (B,).
            class_mask: (C,) bool.
            label_smoothing: share of the target spread evenly over the classes of the mask.
        """
        log_p = self._log_probabilities(logits, class_mask)
        loss = -log_p.gather(1, label[:, None])[:, 0]
        uniform = -(log_p * class_mask).sum(dim=1) / class_mask.sum().clamp(min=1)
        return (1 - label_smoothing) * loss + label_smoothing * uniform

    @staticmethod
    def _log_probabilities(logits: Tensor, class_mask: Tensor) -> Tensor:
        """Log of the softmax (B, C) over the mask; a very small number elsewhere."""
        # not -inf: a batch without images of this task has no classes left, and nan would spread
        lowest = torch.finfo(logits.dtype).min / 2
        return logits.masked_fill(~class_mask, lowest).log_softmax(dim=1)

    def measures(self, logits: Tensor, label: Tensor) -> dict[str, Any]:
        """Entries for ``results.json`` that replace or complete accuracy; here none.

        Args:
            logits: (N, C) of all test images of the task.
            label: (N,).
        """
        return {}

    def predict(self, logits: Tensor, top: int) -> Classes:
        """The ``top`` most probable classes of each image (B, C), by the softmax."""
        best = logits.softmax(dim=1).topk(min(top, logits.shape[1]), dim=1)
        return best.indices.tolist(), best.values.tolist()

    def most_shown(self, top: int, num_classes: int) -> int:
        """The largest number of classes that :meth:`predict` gives for an image."""
        return min(top, num_classes)

    def to_json(self) -> dict[str, Any]:
        """The kind as it is stored in ``tasks.json``, from which :func:`kind_of_json` reads it."""
        return {"name": self.name, **asdict(self)}


@dataclass(unsafe_hash=True)
class Ordinal(SingleLabel):
    """Each image has one class, and the classes have an order: a mistake weighs by its distance.

    The loss is the cross-entropy plus ``weight`` times the squared earth mover's distance between
    the probabilities and the label, sum_k (P(class <= k) - [label <= k])^2:
    https://arxiv.org/abs/1611.05916. Beside the accuracy, the mean absolute error is measured, in
    steps of the order, of the most probable class.
    """

    name: ClassVar[str] = "ordinal"
    own_measures: ClassVar[bool] = True

    weight: float = 1.0

    def loss(
        self, logits: Tensor, label: Tensor, class_mask: Tensor, label_smoothing: float = 0.0
    ) -> Tensor:
        """Cross-entropy plus the weighted distance (B,); see :meth:`SingleLabel.loss`.

        The distance counts the classes of the mask only.
        """
        entropy = super().loss(logits, label, class_mask, label_smoothing)
        if not self.weight:
            return entropy
        probability = self._log_probabilities(logits, class_mask).exp()
        target = F.one_hot(label, logits.shape[1]).to(probability.dtype)
        gap = (probability - target).cumsum(dim=1)  # of the cumulative distributions
        return entropy + self.weight * (gap.square() * class_mask).sum(dim=1)

    def measures(self, logits: Tensor, label: Tensor) -> dict[str, Any]:
        """The mean absolute error, in steps of the order."""
        return {"measures": {"MAE": mean_absolute_error(logits.argmax(dim=1), label)}}


@dataclass(unsafe_hash=True)
class MultiLabel(SingleLabel):
    """Each image has a set of classes: a sigmoid per class, mean average precision.

    The loss of an image is the sum over classes of the binary cross-entropy of
    sigmoid(logit + bias), or the asymmetric loss, which gives easy negatives less weight. The
    logits are CLIP's cosines times its logit scale; they are all positive, so the bias, a
    negative number, says which logit is as likely as not.

    Args:
        sets: the classes of each label, in ascending order; a set may be empty.
        loss_name: binary or asymmetric.
        positive_weight: factor of the loss of a class that the image has.
        bias: added to every logit. ``OPTIM.LOGIT_BIAS auto`` sets it once the model is built, for
            all holders of the kind: loss, evaluator, ``tasks.json``.
        threshold: probability from which a class counts as predicted.
    """

    name: ClassVar[str] = "multi_label"
    is_set: ClassVar[bool] = True
    own_measures: ClassVar[bool] = True

    sets: tuple[tuple[int, ...], ...] = ((),)
    loss_name: str = "binary"
    positive_weight: float = 1.0
    bias: float = field(default=0.0, hash=False)  # set during a run
    threshold: float = 0.5

    def __post_init__(self):
        if self.loss_name not in MULTI_LABEL_LOSSES:
            raise unknown_name("loss of multi-label tasks", self.loss_name, MULTI_LABEL_LOSSES)
        if not 0 < self.threshold < 1:
            raise UserError(
                f"the threshold of a multi-label task is a probability between 0 and 1; got "
                f"{self.threshold}"
            )

    def classes_of(self, label: int) -> tuple[int, ...]:
        return self.sets[label]

    def label_names(self, classnames: Sequence[str]) -> Sequence[str]:
        return [", ".join(classnames[c] for c in classes) for classes in self.sets]

    def metric(self, chosen: str) -> str:
        return "mAP"

    def restrict(self, span: range) -> tuple[MultiLabel, dict[int, int]]:
        """The kind with the classes ``span``; an image without any of them is left out."""
        left = [tuple(c - span.start for c in classes if c in span) for classes in self.sets]
        used = [label for label, classes in enumerate(left) if classes]
        sets = tuple(left[label] for label in used)
        return replace(self, sets=sets), {label: i for i, label in enumerate(used)}

    @cached_property
    def _tables(self) -> dict[tuple[torch.device, int], Tensor]:
        return {}

    def targets(self, label: Tensor, num_classes: int) -> Tensor:
        """Whether each image has each class, (B, C) bool, for labels (B,)."""
        place = label.device, num_classes
        if place not in self._tables:
            table = torch.zeros(len(self.sets), num_classes, dtype=torch.bool)
            for row, classes in zip(table, self.sets, strict=True):
                row[list(classes)] = True
            self._tables[place] = table.to(label.device)
        return self._tables[place][label]

    def loss(
        self, logits: Tensor, label: Tensor, class_mask: Tensor, label_smoothing: float = 0.0
    ) -> Tensor:
        """Sum (B,) over the classes of the mask of each class's loss; see the class.

        With ``label_smoothing`` s, targets are s / 2 and 1 - s / 2 instead of 0 and 1.
        """
        z = logits + self.bias
        y = self.targets(label, logits.shape[1]).to(z.dtype)
        y = y * (1 - label_smoothing) + label_smoothing / 2
        if self.loss_name == "binary":
            negative = F.logsigmoid(-z)
        else:
            shifted = (z.sigmoid() - MARGIN).clamp(min=0)
            negative = shifted**FOCUS * torch.log1p(-shifted)
        loss = -(self.positive_weight * y * F.logsigmoid(z) + (1 - y) * negative)  # (B, C)
        return (loss * class_mask).sum(dim=1)

    def starting_bias(self, logits: Tensor, label: Tensor | None) -> float:
        """The bias with which the mean logit is as probable as a class is among the labels.

        The binary loss without label smoothing has about its minimum over constant logits there.

        Args:
            logits: (N, C) of the untrained model.
            label: (N,); None: the mean logit is to have the probability 1/2.
        """
        if label is None:
            return -logits.double().mean().item()
        target = self.targets(label.to(logits.device), logits.shape[1])
        present = (target.sum().item() + 0.5) / (target.numel() + 1)  # never 0 or 1
        odds = self.positive_weight * present / (1 - present)
        return math.log(odds) - logits.double().mean().item()

    def measures(self, logits: Tensor, label: Tensor) -> dict[str, Any]:
        """Mean average precision as the task's value, and F1 at the threshold."""
        found = set_measures(*self._scored(logits, label), self.threshold)
        return {
            "value": found.mean_average_precision,
            "correct": found.exact,
            "total": len(label),
            "measures": {"F1": found.macro_f1},
            "classes_without_positives": found.left_out,
            "mean_logit": logits.double().mean().item(),
            "bias": self.bias,
        }

    def class_values(self, logits: Tensor, label: Tensor) -> list[float | None]:
        """The average precision of each class, in percent; None if no image has it."""
        return average_precisions(*self._scored(logits, label))

    def _scored(self, logits: Tensor, label: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and sets of images, each (N, C)."""
        probability = (logits.double() + self.bias).sigmoid()
        target = self.targets(label.to(logits.device), logits.shape[1])
        return probability.numpy(), target.numpy()

    def predict(self, logits: Tensor, top: int) -> Classes:
        """All classes from the threshold up, the most probable first, whatever ``top`` is."""
        best = (logits.double() + self.bias).sigmoid().sort(dim=1, descending=True, stable=True)
        counts = (best.values >= self.threshold).sum(dim=1).tolist()
        rows = zip(best.indices.tolist(), best.values.tolist(), counts, strict=True)
        shown = [(classes[:n], values[:n]) for classes, values, n in rows]
        return [classes for classes, _ in shown], [values for _, values in shown]

    def most_shown(self, top: int, num_classes: int) -> int:
        return num_classes

    def to_json(self) -> dict[str, Any]:
        """The kind without its sets, which belong to the images."""
        content = super().to_json()
        del content["sets"]
        return content


SINGLE_LABEL = SingleLabel()
KINDS = {kind.name: kind for kind in (SingleLabel, MultiLabel, Ordinal)}


def kind_of_json(content: dict[str, Any]) -> SingleLabel:
    """The kind that :meth:`SingleLabel.to_json` wrote."""
    fields = dict(content)
    return KINDS[fields.pop("name")](**fields)
