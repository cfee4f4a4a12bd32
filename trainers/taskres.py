"""TaskRes: a learned residual on the text feature of each class.

https://arxiv.org/abs/2211.10277
"""

from __future__ import annotations

import torch
from torch import nn

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.precision import PRECISIONS
from prompting.prompter import Prompter
from prompting.templates import GENERAL, average_templates

from ._base import PromptTrainer


class ResidualPrompter(Prompter):
    """Text features T + alpha X: T (C, e) frozen and not normalised, X (C, e) learned, 0 at first.

    The size of a step of alpha X therefore depends on the length of the tower's text features.
    """

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder):
        super().__init__()
        extra = GENERAL if options.ENSEMBLE else ()
        base = average_templates(space, text, extra, normalised=False)
        self.register_buffer("base", base, persistent=False)  # T
        self.residual = nn.Parameter(torch.zeros_like(base))  # X
        self.alpha = options.ALPHA

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e)."""
        return self.base + self.alpha * self.residual


@TRAINER_REGISTRY.register()
class TaskRes(PromptTrainer):
    """A residual per class on frozen text features, each task separately; no text is encoded."""

    KEY = "TASKRES"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        ALPHA=Key(0.5, above=0),  # weight of the residual
        ENSEMBLE=False,  # average seven general templates with the dataset's own
    )

    @torch.no_grad()
    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return ResidualPrompter(options, space, text)

    def bound_tensors(self) -> dict[str, list[str]]:
        return {"residual": self.dm.space.classnames}
