"""IVLP: independent vision-language prompts, deep in both towers. arXiv:2210.03117, section 4.3"""

from __future__ import annotations

import torch

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.deep_prompts import IndependentPrompter, check_depth
from prompting.precision import PRECISIONS
from prompting.prompter import Prompter
from prompting.stored_features import Storable
from prompting.upstream_deep import independent_prompts_of

from ._base import PromptTrainer


@TRAINER_REGISTRY.register()
class IVLP(PromptTrainer):
    """Contexts of the text blocks and tokens of the image blocks; each task separately."""

    KEY = "IVLP"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX_VISION=Key(2, least=1),  # tokens beside the patches
        N_CTX_TEXT=Key(2, least=1),  # context tokens
        # words that start the context; those that N_CTX_TEXT leaves over stay in the prompt, fixed
        CTX_INIT="a photo of a",
        # image blocks with tokens of their own; 0: only the text learns
        PROMPT_DEPTH_VISION=Key(12, least=0),
        PROMPT_DEPTH_TEXT=Key(12, least=1),  # text blocks with a context of their own
    )

    def stored_features(self, options: CfgNode) -> Storable:
        return Storable.NONE if options.PROMPT_DEPTH_VISION else Storable.ALL

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        check_depth("IVLP.PROMPT_DEPTH_TEXT", options.PROMPT_DEPTH_TEXT, text.layers)
        if options.PROMPT_DEPTH_VISION:
            layers = self.clip.image_layers
            check_depth("IVLP.PROMPT_DEPTH_VISION", options.PROMPT_DEPTH_VISION, layers)
        return IndependentPrompter(options, space, text, self.clip)

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return independent_prompts_of(states, bool(self.cfg.TRAINER.IVLP.PROMPT_DEPTH_VISION))

    def method_name(self) -> str:
        return "IVLP" if self.cfg.TRAINER.IVLP.PROMPT_DEPTH_VISION else "IVLP (language only)"
