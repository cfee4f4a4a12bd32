"""CoCoOp: conditional prompt learning for vision-language models.

https://arxiv.org/abs/2203.05557
"""

from __future__ import annotations

import torch

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from image_text import QuestionSpace
from prompting.image_conditional import encode_per_image, image_net
from prompting.precision import PRECISIONS
from prompting.prompt_learner import POSITIONS, PromptLearner, need_context
from prompting.prompter import Prompter

from ._base import PromptTrainer


class ConditionalPrompter(Prompter):
    """A learned context that each image shifts: v_j(x) = v_j + h(x), j = 1 .. m.

    h is the Meta-Net (linear, ReLU, linear) on the normalised image feature, with one shift for
    all m tokens. CHUNK images are encoded at a time, so that memory does not grow with B.
    """

    depends_on_image = True

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder):
        super().__init__()
        self.chunk = options.CHUNK
        self.prompts = PromptLearner(
            space.classnames,
            text,
            n_ctx=options.N_CTX,
            ctx_init=options.CTX_INIT,
            position=options.CLASS_TOKEN_POSITION,
            inserts=isinstance(space, QuestionSpace),
        )
        self.meta_net = image_net(text.out_dim, text.width)

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (B, k, e) of the masked classes, for normalised image features (B, e)."""
        contexts = self.prompts.ctx + self.meta_net(image_features)[:, None]  # (B, m, d)
        return encode_per_image(text, self.prompts, contexts, class_mask, self.chunk)


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Conditional contexts, shifted by each image; each task separately."""

    KEY = "COCOOP"
    pairs = True
    free_options = ("CHUNK",)
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(16, least=0),  # number of context tokens, if CTX_INIT is empty
        CTX_INIT="",  # words that start the context; published: "a photo of a"
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
        CHUNK=Key(8, least=0),  # images whose prompts are in memory at once; 0: all
    )

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.COCOOP
        need_context(self.KEY, options.N_CTX, options.CTX_INIT)

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return ConditionalPrompter(options, space, text)
