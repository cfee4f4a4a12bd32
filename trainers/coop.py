"""CoOp: learning to prompt for vision-language models. https://arxiv.org/abs/2109.01134"""

from __future__ import annotations

import torch
from torch import nn

from dassl.engine import TRAINER_REGISTRY

from ._base import PromptTrainer
from ._prompts import PromptLearner, scatter_kept


class ContextPrompter(nn.Module):
    """One learned context in front of every class name, or one per class (equations 2 and 3)."""

    def __init__(self, options, space, text):
        super().__init__()
        self.prompts = PromptLearner(
            space.classnames,
            text,
            n_ctx=options.N_CTX,
            ctx_init=options.CTX_INIT,
            group=torch.arange(space.num_classes) if options.CSC else None,
            position=options.CLASS_TOKEN_POSITION,
        )

    def forward(self, text, image_features, keep=None):
        """Text features (C, e)."""
        return scatter_kept(text.encode(self.prompts(keep=keep)), keep)


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimization: the words around the class names are learned, each task by itself."""

    KEY = "COOP"
    pairs = True
    DEFAULTS = dict(
        PREC="fp16",  # fp16, fp32 or amp
        N_CTX=16,  # number of context tokens
        CTX_INIT="",  # words that start the context; empty for random
        CSC=False,  # class-specific context
        CLASS_TOKEN_POSITION="end",  # end, middle or front
    )

    def build_prompter(self, options, space, text):
        return ContextPrompter(options, space, text)

    def method_name(self):
        return "CoOp-CS" if self.cfg.TRAINER.COOP.CSC else "CoOp-CA"
