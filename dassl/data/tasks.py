"""The columns of many classification tasks in one logit vector, and the loss over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from dassl.utils import UserError, unknown_name

from .label_kinds import SINGLE_LABEL, SingleLabel
from .names import clean_name, find_equal

METRICS = ("overall_acc", "mean_acc")


@dataclass(frozen=True)
class Task:
    """One classification task.

    Args:
        name: words for task prompts, such as "kind of flower".
        templates: sentences with one ``{}`` for the class name.
        metric: overall_acc (correct / total) or mean_acc (mean of the per-class recalls).
        group: averages are within a group; "" if there is one group.
        kind: what the labels are; see ``label_kinds``.
        name_in_prompts: words that replace the name in prompts; "" for the name itself.

    Raises:
        UserError: no classes, a duplicate class name, a template without ``{}``, an unknown metric.
    """

    name: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...] = ("a photo of a {}.",)
    metric: str = "overall_acc"
    group: str = ""
    kind: SingleLabel = field(default_factory=SingleLabel)
    name_in_prompts: str = ""

    def __post_init__(self):
        object.__setattr__(self, "classnames", tuple(self.classnames))
        object.__setattr__(self, "templates", tuple(self.templates))
        if not self.classnames:
            raise UserError(f"task {self.name!r} has no classes; it needs at least one")
        if equal := find_equal(self.classnames, clean_name):
            raise UserError(
                f"task {self.name!r} has two classes of the same name: {equal[0]!r} and "
                f"{equal[1]!r} (case, blanks, quotes and Unicode forms do not count); rename or "
                "merge them"
            )
        for template in self.templates:
            if "{}" not in template or set(template.replace("{}", "", 1)) & set("{}"):
                raise UserError(
                    f"template {template!r} of task {self.name!r} must hold {{}} once, "
                    "where the class name goes, and no other brace"
                )
        if not self.templates:
            raise UserError(f"task {self.name!r} has no template, such as 'a photo of a {{}}.'")
        if self.metric not in METRICS:
            raise unknown_name("metric", self.metric, METRICS)


@dataclass(frozen=True)
class TaskSpace:
    """Tasks and their logit columns: task t has columns ``offsets[t]:offsets[t + 1]``."""

    tasks: tuple[Task, ...]

    unit = "images"  # what is counted, for messages
    content = ""  # what the labels number, if not classes; for messages
    evaluator = ""  # its evaluator; "": TEST.EVALUATOR

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not self.tasks:
            raise UserError("there are no tasks; a space needs at least one")

    @cached_property
    def sizes(self) -> list[int]:
        """Number of classes of each task."""
        return [len(task.classnames) for task in self.tasks]

    @cached_property
    def offsets(self) -> Tensor:
        """First column of each task, then the number of columns: (T + 1,)."""
        return torch.tensor([0, *self.sizes]).cumsum(0)

    @cached_property
    def classnames(self) -> list[str]:
        """Class name of each column."""
        return [name for task in self.tasks for name in task.classnames]

    @property
    def tasknames(self) -> list[str]:
        """Name of each task."""
        return [task.name for task in self.tasks]

    @property
    def prompt_names(self) -> list[str]:
        """Name of each task in prompts."""
        return [task.name_in_prompts or task.name for task in self.tasks]

    @cached_property
    def owner(self) -> Tensor:
        """Task of each column: (C,)."""
        return torch.arange(len(self.tasks)).repeat_interleave(torch.tensor(self.sizes))

    @property
    def num_classes(self) -> int:
        """C, the number of columns."""
        return len(self.classnames)

    @cached_property
    def _copies(self) -> dict:
        return {}

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """``owner`` and ``offsets`` on a device, cached."""
        if device not in self._copies:
            self._copies[device] = self.owner.to(device), self.offsets.to(device)
        return self._copies[device]

    def columns(self, t: int) -> slice:
        """The logit columns of task ``t``."""
        return slice(int(self.offsets[t]), int(self.offsets[t + 1]))

    def column_of(self, label: Tensor, task: Tensor) -> Tensor:
        """The logit column (B,) of each label (B,) within its task (B,)."""
        return label + self._on(label.device)[1][task]

    def own_logits(self, logits: Tensor, task: Tensor) -> Tensor:
        """Logits (B, C), -inf for the classes of other tasks than that of the image (B,)."""
        owner, _ = self._on(logits.device)
        return logits.masked_fill(owner != task[:, None], float("-inf"))

    def of_tasks(self, task: Tensor, class_mask: Tensor | None = None) -> Tensor | None:
        """Mask (C,) of the classes whose task is in a batch (B,), within ``class_mask``; None: all.

        The loss of an image reads only the columns of its own task.
        """
        if len(self.tasks) == 1:
            return class_mask
        in_batch = torch.zeros(len(self.tasks), dtype=torch.bool, device=task.device)
        present = in_batch.index_fill(0, task, True)[self._on(task.device)[0]]
        if class_mask is not None:
            return class_mask & present.to(class_mask.device)
        return None if present.all() else present

    def subset(self, ids: Iterable[int]) -> TaskSpace:
        """The space of the tasks ``ids``, in that order."""
        return TaskSpace(tuple(self.tasks[i] for i in ids))

    def task_words(self, t: int) -> dict[str, str | tuple[str, ...]]:
        """Name, class names and templates of task ``t``, as they count for the data's identity."""
        task = self.tasks[t]
        words = {"name": task.name, "classnames": task.classnames, "templates": task.templates}
        reworded = {"name_in_prompts": task.name_in_prompts} if task.name_in_prompts else {}
        return words | reworded

    def label_content(self, item) -> int | list:
        """What an item's label means, as it counts for the data's identity."""
        task = self.tasks[item.task]
        if not task.kind.is_set:
            return item.label
        return sorted(task.classnames[c] for c in task.kind.classes_of(item.label))

    @cached_property
    def kinds(self) -> list[SingleLabel]:
        """Kind of label of each task; captions and questions have none."""
        return [getattr(task, "kind", SINGLE_LABEL) for task in self.tasks]

    @cached_property
    def set_tasks(self) -> list[int]:
        """The tasks whose labels are numbers of sets of classes."""
        return [t for t, kind in enumerate(self.kinds) if kind.is_set]

    @cached_property
    def class_tasks(self) -> list[int]:
        """The other tasks, whose images have one class each."""
        return [t for t, kind in enumerate(self.kinds) if not kind.is_set]

    def has_class(self, task: Tensor) -> Tensor:
        """Mask (B,) of the images whose task (B,) is one of :attr:`class_tasks`."""
        return torch.isin(task, torch.tensor(self.class_tasks, device=task.device))

    def class_labels(self, label: Tensor, task: Tensor) -> Tensor:
        """The labels (B,) of a batch, 0 where a label is the number of a set."""
        for t in self.set_tasks:
            label = label.masked_fill(task == t, 0)
        return label

    def scored(self, batch: dict) -> Tensor | None:
        """Mask (C,) of the columns in the loss of a training batch; None: all."""
        return None

    def tested(self, split: str) -> Tensor | None:
        """Mask (C,) of the columns in the evaluation of "val" or "test"; None: all."""
        return None

    def question_ids(self, label: Tensor) -> Tensor | None:
        """Question (B,) of each item of a batch, on the CPU; None if the task asks none."""
        return None

    def cross_entropy(
        self,
        logits: Tensor,
        label: Tensor,
        task: Tensor,
        class_mask: Tensor | None = None,
        label_smoothing: float = 0.0,
        weigh: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Mean over the batch of the loss of each image, see ``image_losses``.

        The weight of a task is its number of images in the batch, as in SoftCPT, unless ``weigh``
        gives the loss of a batch from those of its images (B,) and their tasks (B,).
        """
        loss = self.image_losses(logits, label, task, class_mask, label_smoothing)
        return loss.mean() if weigh is None else weigh(loss, task)

    def image_losses(
        self,
        logits: Tensor,
        label: Tensor,
        task: Tensor,
        class_mask: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Loss (B,) of each image, by the kind of its task; computed in fp32.

        That of a single label is the cross-entropy among the classes of the image's own task.

        Args:
            logits: (B, C).
            label: (B,), within the task.
            task: (B,).
            class_mask: (C,) bool, the columns that take part, with all labels of the batch.
            label_smoothing: share of the target spread evenly over the task's unmasked classes.
        """
        owner, _ = self._on(logits.device)
        allowed = owner == task[:, None]  # (B, C)
        if class_mask is not None:
            class_mask = class_mask.to(allowed.device, non_blocking=True)
            allowed = allowed & class_mask
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_p = logits.masked_fill(~allowed, float("-inf")).log_softmax(dim=1)  # (B, C)
        column = self.column_of(self.class_labels(label, task), task)
        loss = -log_p.gather(1, column[:, None])[:, 0]  # (B,)
        if label_smoothing:
            uniform = -log_p.masked_fill(~allowed, 0.0).sum(dim=1) / allowed.sum(dim=1)  # (B,)
            loss = (1 - label_smoothing) * loss + label_smoothing * uniform
        for t, kind in enumerate(self.kinds):
            if type(kind) is SingleLabel:
                continue
            columns, mine = self.columns(t), task == t
            scored = torch.ones_like(owner, dtype=torch.bool) if class_mask is None else class_mask
            target = label.masked_fill(~mine, 0)
            args = logits[:, columns], target, scored[columns], label_smoothing
            loss = loss.where(~mine, kind.loss(*args))
        return loss
