"""CoOp: learning to prompt for vision-language models. https://arxiv.org/abs/2109.01134"""

from __future__ import annotations

import torch

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.precision import PRECISIONS
from prompting.prompt_learner import POSITIONS, ContextPrompter
from prompting.prompter import Prompter
from prompting.upstream import MODULE, context_of

from ._base import PromptTrainer


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimization: learned words around the class names; each task separately."""

    KEY = "COOP"
    pairs = True  # also takes captions and questions
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(16, least=0),  # number of context tokens
        CTX_INIT="",  # words that start the context; empty for random
        CSC=False,  # one context per class
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
    )

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return ContextPrompter(options, space, text)

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {"prompts.ctx": context_of(states, MODULE, self.model.prompter.prompts)}

    def method_name(self) -> str:
        return "CoOp-CS" if self.cfg.TRAINER.COOP.CSC else "CoOp-CA"
