"""SoftCPT's prompts: contexts that a meta network makes from the names of the tasks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from clip import TextEncoder
from clip.text import index_rows
from dassl.config import CfgNode
from dassl.data import TaskSpace

from .meta_net import build_meta_net
from .prompt_learner import INIT_STD, PromptLearner, scatter_rows
from .prompter import Prompter


class SoftPrompter(Prompter):
    """Text features of the classes of all tasks, in contexts generated from the task names.

    With g the frozen text tower, U the task context, V the class context, W the meta network:

        r_t   = g([SOS] U task_t . [EOT]), or learned           (e,)  task feature
        s_tc  = g([SOS] V class_tc . [EOT])                     (e,)  class feature, only with CSC
        S     = W(r_t), one context per task, or W(s_tc, r_t), one per class
        w_tc  = g([SOS] S class_tc . [EOT])                     (e,)  text feature of class c
    """

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder):
        super().__init__()
        self.frozen_classes = bool(options.FREEZE_CLS_PROMPT)
        tasks = space.prompt_names
        self.tasks: PromptLearner | None = None
        self.vectors: nn.Parameter | None = None
        if options.TASK_VECTORS:
            self.vectors = nn.Parameter(INIT_STD * torch.randn(len(tasks), text.out_dim))
        else:
            per_task = torch.arange(len(tasks)) if options.TASK_CSC else None
            self.tasks = _learner(tasks, text, options, "TASK_", per_task)
        self.classes: PromptLearner | None = None
        if options.CSC:
            per_class = torch.arange(space.num_classes) if options.CLASS_CSC else None
            self.classes = _learner(space.classnames, text, options, "CLASS_", per_class)
            if self.frozen_classes:
                self.classes.requires_grad_(False)
        self.names = _learner(space.classnames, text, options, "", None, learn=False)
        self.meta = build_meta_net(
            options.PG_TYPE,
            feature_dim=text.out_dim,
            n_ctx=self.names.n_ctx,
            ctx_dim=text.width,
            with_classes=options.CSC,
            ratio=options.PG_RATIO,
        )
        self._class_features: tuple | None = None
        self.n_tasks, self.owner = len(tasks), space.owner  # (C,) task of each class

    def tasks_of(self, class_mask: torch.Tensor | None) -> torch.Tensor | None:
        """Mask (T,) of the tasks of the classes in ``class_mask``; None: all."""
        if class_mask is None:
            return None
        owner = self.owner[class_mask]
        return torch.zeros(self.n_tasks, dtype=torch.bool).index_fill(0, owner, True)

    def task_rows(self, class_mask: torch.Tensor | None) -> torch.Tensor:
        """The place (C,) of each class's task among those of :meth:`tasks_of`."""
        tasks = self.tasks_of(class_mask)
        return self.owner if tasks is None else ranks(tasks)[self.owner]

    def generated_contexts(self, text: TextEncoder) -> torch.Tensor:
        """One context per task (T, m, d), or with class features one per class (C, m, d)."""
        return self.meta(*self.meta_inputs(text))

    def meta_inputs(
        self, text: TextEncoder, class_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Features that the meta network maps, for the classes in ``class_mask``.

        Those of their tasks (T, e); or, with class features, of task and class, both (C, e).
        """
        tasks = self.tasks_of(class_mask)
        if self.tasks is not None:
            task = text.encode(self.tasks(class_mask=tasks)).float()  # (T, e)
        elif self.vectors is not None:
            task = (
                self.vectors if tasks is None else index_rows(self.vectors, tasks.nonzero()[:, 0])
            )
        if self.classes is None:
            return (task,)
        rows = self.task_rows(class_mask)
        rows = rows if class_mask is None else rows[class_mask]
        return index_rows(task, rows), self.class_features(text, class_mask)

    def class_features(
        self, text: TextEncoder, class_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features (k, e) of the classes in ``class_mask``; computed once if not learned.

        Raises:
            RuntimeError: the prompts have no contexts per class.
        """
        classes = self.classes
        if classes is None:
            raise RuntimeError("class_features needs contexts per class, which are made if CSC")
        if not self.frozen_classes:
            return text.encode(classes(class_mask=class_mask)).float()
        ctx = classes.ctx
        state = None if ctx is None else (ctx._version, ctx.device)  # loading writes in place
        if self._class_features is None or self._class_features[0] != state:
            with torch.no_grad():
                self._class_features = state, text.encode(classes()).float()
        features = self._class_features[1]
        return features if class_mask is None else index_rows(features, class_mask.nonzero()[:, 0])

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e); zero outside ``class_mask``."""
        class_mask = None if class_mask is None else class_mask.cpu()
        features = self.meta_inputs(text, class_mask)
        ctx = self.meta(*features)
        if self.classes is None:
            group = self.task_rows(class_mask)
        else:
            group = torch.arange(len(self.owner)) if class_mask is None else ranks(class_mask)
        prompts = self.names(ctx, group, class_mask)
        prompts = replace(prompts, deep=self.deep_contexts(*features))
        return scatter_rows(text.encode(prompts), class_mask)

    def deep_contexts(
        self, task: torch.Tensor, cls: torch.Tensor | None = None
    ) -> dict[int, torch.Tensor]:
        """Contexts (n, m, d) of later text blocks by index, from :meth:`meta_inputs`; here none."""
        return {}


def ranks(mask: torch.Tensor) -> torch.Tensor:
    """Rank of each marked entry of a mask among the marked ones."""
    return mask.cumsum(0) - 1


def _learner(names, text, options, level, group, learn=True):
    """The prompts of one level: "TASK_", "CLASS_", or "" for the final prompts."""
    return PromptLearner(
        names,
        text,
        n_ctx=options[f"{level}N_CTX"],
        ctx_init=options[f"{level}CTX_INIT"],
        group=group,
        learn=learn,
        position=options[f"{level}TOKEN_POSITION"],
    )
