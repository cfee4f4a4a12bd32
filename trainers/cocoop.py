"""CoCoOp: conditional prompt learning for vision-language models.

https://arxiv.org/abs/2203.05557
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError

from ._base import PromptTrainer
from ._prompts import PromptLearner, need_context, scatter_kept

BOTTLENECK = 16  # the hidden layer is so many times narrower than the image features


class ConditionalPrompter(nn.Module):
    """A learned context that every image shifts: v_j(x) = v_j + h(x), j = 1 .. m.

    h is the meta-net, linear, ReLU, linear, of the normalised image feature; one shift for all m
    tokens. Images are taken ``chunk`` at a time; what the text tower computes for a chunk is
    computed anew in the backward pass, so that memory grows with ``chunk`` and not with B.
    """

    conditional = True

    def __init__(self, options, space, text):
        super().__init__()
        self.chunk = options.CHUNK
        self.prompts = PromptLearner(
            space.classnames,
            text,
            n_ctx=options.N_CTX,
            ctx_init=options.CTX_INIT,
            position=options.CLASS_TOKEN_POSITION,
        )
        hidden = max(text.out_dim // BOTTLENECK, 1)
        layers = [
            ("linear1", nn.Linear(text.out_dim, hidden)),
            ("relu", nn.ReLU()),
            ("linear2", nn.Linear(hidden, text.width)),
        ]
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def forward(self, text, image_features, keep=None):
        """Text features (B, C, e) for normalised image features (B, e)."""
        contexts = self.prompts.ctx + self.meta_net(image_features)[:, None]  # (B, m, d)
        if not self.chunk or len(contexts) <= self.chunk:
            return self.encode(text, contexts, keep)
        parts = [
            checkpoint(self.encode, text, part, keep, use_reentrant=False, preserve_rng_state=False)
            for part in contexts.split(self.chunk)
        ]
        return torch.cat(parts)

    def encode(self, text, contexts, keep):
        """Text features (b, C, e) of every class in every context (b, m, d)."""
        found = text.encode(self.prompts(contexts, keep=keep, every=True))  # (b * C, e)
        return scatter_kept(found.unflatten(0, (len(contexts), -1)), keep)


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Conditional contexts: every image shifts the learned words, each task by itself."""

    KEY = "COCOOP"
    DEFAULTS = dict(
        PREC="fp16",  # fp16, fp32 or amp
        N_CTX=16,  # number of context tokens, if CTX_INIT is empty
        CTX_INIT="",  # words that start the context; published: "a photo of a"
        CLASS_TOKEN_POSITION="end",  # end, middle or front
        CHUNK=8,  # images whose prompts are held in memory at once; 0 for all
    )

    def check_cfg(self, cfg):
        options = cfg.TRAINER.COCOOP
        need_context(self.KEY, options.N_CTX, options.CTX_INIT)
        if options.CHUNK < 0:
            raise UserError(
                f"TRAINER.COCOOP.CHUNK counts images, 0 for all at once; got {options.CHUNK}"
            )

    def build_prompter(self, options, space, text):
        return ConditionalPrompter(options, space, text)
