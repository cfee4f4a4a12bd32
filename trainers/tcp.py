"""TCP: textual-based class-aware prompt tuning. https://arxiv.org/abs/2311.18231"""

from __future__ import annotations

from dataclasses import replace

import torch
from open_clip.transformer import QuickGELU
from torch import nn

from clip import Prompts, TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from prompting.precision import PRECISIONS
from prompting.prompt_learner import ContextPrompter, need_context
from prompting.prompter import ModelOutput, Prompter
from prompting.templates import TemplatePrompter, with_template

from ._base import PromptTrainer


class ClassAwarePrompter(ContextPrompter):
    """CoOp's shared context, replaced by tokens of the class before one of the later blocks.

    The tokens come from the frozen text feature u of the class in a hand-written template:

        T = W2 QuickGELU(W1 u + b1) + b2,   W1 (e/k, e), W2 (m d, e/k), as m tokens of width d
    """

    class_features: torch.Tensor

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder):
        super().__init__(
            CfgNode({**options, "CSC": False, "CLASS_TOKEN_POSITION": "end"}), space, text
        )
        written = TemplatePrompter(with_template(space, options.TEMPLATE), text)
        self.register_buffer("class_features", written.features, persistent=False)  # u (C, e)
        self.layer, self.class_tokens = options.LAYER, None
        if options.CLASS_AWARE:
            hidden = text.out_dim // options.REDUCTION
            self.class_tokens = nn.Sequential(
                nn.Linear(text.out_dim, hidden),
                QuickGELU(),
                nn.Linear(hidden, self.prompts.n_ctx * text.width),
                nn.Unflatten(1, (self.prompts.n_ctx, text.width)),
            )

    def make_prompts(self, class_mask: torch.Tensor | None) -> Prompts:
        """Prompts of the classes that ``class_mask`` chooses, each a group of its own."""
        prompts = super().make_prompts(class_mask)
        if self.class_tokens is None:
            return prompts
        u = self.class_features
        if class_mask is not None:
            u = u[class_mask.to(u.device)]
        prefix = prompts.prefix.expand(len(u), -1, -1)
        deep = {self.layer: self.class_tokens(u)}  # (n, m, d)
        return replace(prompts, prefix=prefix, group=torch.arange(len(u)), deep=deep)


@TRAINER_REGISTRY.register()
class TCP(PromptTrainer):
    """KgCoOp with tokens of each class from its own text feature, each task separately."""

    KEY = "TCP"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(4, least=0),  # number of context tokens, if CTX_INIT is empty
        CTX_INIT="",  # words that start the context; empty for random
        W=Key(8.0, least=0),  # weight of 1 - cosine to the hand-written prompt's feature
        CLASS_AWARE=True,  # False: keep the shared context, as KgCoOp does
        LAYER=Key(8, least=1),  # block, from 0, before which the class's tokens come in
        REDUCTION=Key(4, least=1),  # k: the hidden width is the feature's divided by it
        TEMPLATE="",  # the hand-written prompt, with {} for the class; empty: the dataset's own
    )
    free_options = ("W",)
    uses_templates = True
    needs_all_classes = True  # the distance is a mean over classes, images of them or not

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.TCP
        need_context(self.KEY, options.N_CTX, options.CTX_INIT)

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        if text.layers <= options.LAYER and options.CLASS_AWARE:
            raise UserError(
                f"TRAINER.TCP.LAYER takes a block of the text tower, 1 to {text.layers - 1} here; "
                f"got {options.LAYER}"
            )
        if text.out_dim < options.REDUCTION:
            raise UserError(
                f"TRAINER.TCP.REDUCTION divides the feature's width {text.out_dim}; "
                f"got {options.REDUCTION}"
            )
        return ClassAwarePrompter(options, space, text)

    def compute_loss(
        self, output: ModelOutput, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy, and W times the mean of 1 - cos(learned, hand-written) over classes."""
        losses = super().compute_loss(output, batch, class_mask)
        distance = self.templates.distance(output.text_features)
        return {**losses, "distance": self.cfg.TRAINER.TCP.W * distance}
