"""MaPLe: multi-modal prompt learning. https://arxiv.org/abs/2210.03117"""

from __future__ import annotations

import copy

import torch
from torch import nn

from clip import CLIP, TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.deep_prompts import DeepContext, PromptedImages, check_depth
from prompting.precision import PRECISIONS
from prompting.prompter import Prompter
from prompting.stored_features import Storable
from prompting.upstream_deep import coupled_prompts_of

from ._base import PromptTrainer


class CoupledPrompter(PromptedImages):
    """Contexts P_i of the first J text blocks, and image tokens F_i(P_i) made of them.

    Each coupling F_i is linear from the text width d to the image width V, with a bias. Those of
    the later blocks start as copies of one layer.
    """

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder, clip: CLIP):
        super().__init__()
        depth = options.PROMPT_DEPTH
        self.contexts = DeepContext(space.classnames, text, options.N_CTX, options.CTX_INIT, depth)
        first = nn.Linear(text.width, clip.image_width)
        later = nn.Linear(text.width, clip.image_width)
        copies = (copy.deepcopy(later) for _ in range(depth - 1))
        self.couplings = nn.ModuleList([first, *copies])

    def image_tokens(self, clip: CLIP, task: torch.Tensor | None = None) -> dict[int, torch.Tensor]:
        pairs = zip(self.couplings, self.contexts.layers(), strict=True)
        return {i: coupling(context) for i, (coupling, context) in enumerate(pairs)}

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e)."""
        return self.contexts.encode(text, class_mask)


@TRAINER_REGISTRY.register()
class MaPLe(PromptTrainer):
    """Deep text contexts and image tokens made of them; each task separately."""

    KEY = "MAPLE"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(2, least=1),  # context tokens, and tokens beside the patches
        # words that start the context; those that N_CTX leaves over stay in the prompt, fixed
        CTX_INIT="a photo of a",
        PROMPT_DEPTH=Key(9, least=1),  # blocks of each tower with prompts of their own
    )

    def stored_features(self, options: CfgNode) -> Storable:
        return Storable.NONE

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        for layers in (text.layers, self.clip.image_layers):
            check_depth("MAPLE.PROMPT_DEPTH", options.PROMPT_DEPTH, layers)
        return CoupledPrompter(options, space, text, self.clip)

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return coupled_prompts_of(states)
