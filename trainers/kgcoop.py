"""KgCoOp: visual-language prompt tuning with knowledge-guided context optimization.

https://arxiv.org/abs/2303.13283
"""

from __future__ import annotations

import torch

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.precision import PRECISIONS
from prompting.prompt_learner import POSITIONS, ContextPrompter, need_context
from prompting.prompter import ModelOutput, Prompter

from ._base import PromptTrainer


@TRAINER_REGISTRY.register()
class KgCoOp(PromptTrainer):
    """CoOp with a penalty on the distance to hand-written prompts; each task separately."""

    KEY = "KGCOOP"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(4, least=0),  # number of context tokens, if CTX_INIT is empty
        CTX_INIT="a photo of a",  # words that start the context; empty for random
        CSC=False,  # one context per class
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
        W=Key(8.0, least=0),  # weight of the distance, 1 - cosine of the text features
        TEMPLATE="",  # hand-written prompt with {} for the class; empty: the dataset's own
    )
    free_options = ("W", "TEMPLATE")
    uses_templates = True
    needs_all_classes = True  # the distance is averaged over all classes

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.KGCOOP
        need_context(self.KEY, options.N_CTX, options.CTX_INIT)

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return ContextPrompter(options, space, text)

    def compute_loss(
        self, output: ModelOutput, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy, and W times the mean of 1 - cos(learned, hand-written) over classes."""
        losses = super().compute_loss(output, batch, class_mask)
        distance = self.templates.distance(output.text_features)
        return {**losses, "distance": self.cfg.TRAINER.KGCOOP.W * distance}
