"""CoOp: learning to prompt for vision-language models. https://arxiv.org/abs/2109.01134"""

from __future__ import annotations

from dassl.config import Key
from dassl.engine import TRAINER_REGISTRY
from prompting.precision import PRECISIONS
from prompting.prompt_learner import POSITIONS, ContextPrompter
from prompting.upstream import MODULE, context_of

from ._base import PromptTrainer


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimization: the words around the class names are learned, each task by itself."""

    KEY = "COOP"
    pairs = True
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(16, least=0),  # number of context tokens
        CTX_INIT="",  # words that start the context; empty for random
        CSC=False,  # class-specific context
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
    )

    def build_prompter(self, options, space, text):
        return ContextPrompter(options, space, text)

    def from_upstream(self, states):
        return {"prompts.ctx": context_of(states, MODULE, self.model.prompter.prompts)}

    def method_name(self):
        return "CoOp-CS" if self.cfg.TRAINER.COOP.CSC else "CoOp-CA"
