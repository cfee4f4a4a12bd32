"""Zero-shot CLIP with hand-written templates. https://arxiv.org/abs/2103.00020"""

from __future__ import annotations

import torch

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from image_text import QuestionSpace
from prompting.precision import PRECISIONS
from prompting.prompt_learner import ContextPrompter
from prompting.prompter import Prompter
from prompting.templates import GENERAL, TemplatePrompter, with_templates

from ._base import PromptTrainer

# For questions: the question is the context, and nothing is learned.
NO_CONTEXT = CfgNode(dict(N_CTX=0, CTX_INIT="", CSC=False, CLASS_TOKEN_POSITION="end"))


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    """Zero-shot CLIP with the datasets' own templates, on one task or a whole suite."""

    KEY = "ZEROSHOT"
    pairs = True
    DEFAULTS = dict(PREC=Key("fp16", choices=PRECISIONS))
    suite = "joint"

    @torch.no_grad()
    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        if isinstance(space, QuestionSpace):
            return ContextPrompter(NO_CONTEXT, space, text)
        return TemplatePrompter(space, text)

    def method_name(self) -> str:
        return "zero-shot"


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """Zero-shot CLIP, averaging the dataset's own template and seven general ones."""

    KEY = "ZEROSHOT2"
    pairs = False  # its templates are for names of objects
    DEFAULTS = ZeroshotCLIP.DEFAULTS | dict(
        OWN_TEMPLATE=True,  # False: the seven alone, as the released code has it on ImageNet
    )

    @torch.no_grad()
    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        if not options.OWN_TEMPLATE:
            space = with_templates(space, GENERAL)
        return TemplatePrompter(space, text, GENERAL)

    def method_name(self) -> str:
        return "zero-shot (ensemble)"
