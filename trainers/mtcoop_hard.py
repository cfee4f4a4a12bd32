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
from prompting.prompt_learner import POSITIONS, PromptLearner, scatter_rows
from prompting.prompter import Prompter
from prompting.upstream import MODULE, context_of

from ._base import PromptTrainer


class SharedPrompter(Prompter):
    """Learned contexts: one for all classes, one per task, or one per class."""

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder):
        super().__init__()
        group = None
        if options.TSC:
            group = space.owner
        elif options.CSC:
            group = torch.arange(space.num_classes)
        self.prompts = PromptLearner(
            space.classnames,
            text,
            n_ctx=options.N_CTX,
            ctx_init=options.CTX_INIT,
            group=group,
            position=options.TOKEN_POSITION,
        )

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e)."""
        return scatter_rows(text.encode(self.prompts(class_mask=class_mask)), class_mask)


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
        return SharedPrompter(options, space, text)

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
