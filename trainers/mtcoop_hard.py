"""CoOp-MT: CoOp's contexts trained on all tasks of a suite together (hard sharing).

A baseline of SoftCPT, https://arxiv.org/abs/2208.13474 (one context for all).
"""

from __future__ import annotations

import torch

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from prompting.precision import PRECISIONS
from prompting.prompt_learner import POSITIONS, ContextPrompter
from prompting.prompter import Prompter
from prompting.upstream import MODULE, context_of

from ._base import PromptTrainer


@TRAINER_REGISTRY.register()
class MTCoOpHard(PromptTrainer):
    """Hard sharing: CoOp's contexts, trained on all tasks jointly."""

    KEY = "MTCOOPH"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(16, least=0),  # number of context tokens
        CSC=False,  # one context per class
        CTX_INIT="",  # words that start the context; empty for random
        TOKEN_POSITION=Key("end", choices=POSITIONS),
        TSC=False,  # one context per task
    )
    suite = "joint"

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.MTCOOPH
        if options.CSC and options.TSC:
            raise UserError(
                "TRAINER.MTCOOPH.CSC (a context per class) and TSC (a context per task) are both "
                "True; set one of them to False"
            )

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        coop = CfgNode({**options, "CLASS_TOKEN_POSITION": options.TOKEN_POSITION})
        return ContextPrompter(coop, space, text, group=space.owner if options.TSC else None)

    def bound_tensors(self) -> dict[str, list[str]]:
        per_task = self.cfg.TRAINER.MTCOOPH.TSC
        return {"prompts.ctx": self.dm.space.tasknames} if per_task else super().bound_tensors()

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {"prompts.ctx": context_of(states, MODULE, self.model.prompter.prompts)}

    def method_name(self) -> str:
        options = self.cfg.TRAINER.MTCOOPH
        if options.CSC:
            return "CoOp-MT (per class)"
        return "CoOp-MT (per task)" if options.TSC else "CoOp-MT"
