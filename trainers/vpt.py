"""VPT: deep visual prompts on CLIP. https://arxiv.org/abs/2203.12119

On CLIP with fixed text, as the authors of MaPLe compare with it: https://arxiv.org/abs/2210.03117
"""

from __future__ import annotations

import torch

from clip import CLIP, TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.deep_prompts import PromptedImages, check_depth, make_tokens
from prompting.precision import PRECISIONS
from prompting.prompter import Prompter
from prompting.stored_features import Storable
from prompting.templates import TemplatePrompter, with_template
from prompting.upstream_deep import visual_prompts_of

from ._base import PromptTrainer


class VisualPrompter(PromptedImages, TemplatePrompter):
    """Learned tokens in the image tower; text features of a hand-written template."""

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder, clip: CLIP):
        super().__init__(with_template(space, options.TEMPLATE), text)
        self.tokens = make_tokens(clip, options.N_CTX_VISION, options.PROMPT_DEPTH_VISION)

    def image_tokens(self, clip: CLIP, task: torch.Tensor | None = None) -> dict[int, torch.Tensor]:
        return dict(enumerate(self.tokens))


@TRAINER_REGISTRY.register()
class VPT(PromptTrainer):
    """Deep visual prompts: learned tokens before image blocks, fixed text; each task separately."""

    KEY = "VPT"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX_VISION=Key(8, least=1),  # tokens beside the patches
        PROMPT_DEPTH_VISION=Key(12, least=1),  # image blocks with tokens of their own
        TEMPLATE="a photo of a {}.",  # with {} for the class; empty: the dataset's own
    )
    free_options = ("TEMPLATE",)

    def stored_features(self, options: CfgNode) -> Storable:
        return Storable.NONE

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        layers = self.clip.image_layers
        check_depth("VPT.PROMPT_DEPTH_VISION", options.PROMPT_DEPTH_VISION, layers)
        return VisualPrompter(options, space, text, self.clip)

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return visual_prompts_of(states)
