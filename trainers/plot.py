"""PLOT: prompt learning with optimal transport for vision-language models.

https://arxiv.org/abs/2210.01253
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.precision import PRECISIONS
from prompting.prompt_learner import POSITIONS, PromptLearner, scatter_rows
from prompting.prompter import Features, ModelOutput, Prompter

from ._base import PromptTrainer


class PromptSets(Prompter):
    """N learned contexts, every class name in each of them."""

    def __init__(self, options, space, text):
        super().__init__()
        self.sets, classes = options.N, space.num_classes
        group = torch.arange(self.sets).repeat_interleave(classes)
        if options.CSC:
            group = torch.arange(self.sets * classes)
        self.prompts = PromptLearner(
            space.classnames * self.sets,
            text,
            n_ctx=options.N_CTX,
            group=group,
            position=options.CLASS_TOKEN_POSITION,
        )

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (N, C, e)."""
        every = None if class_mask is None else class_mask.repeat(self.sets)
        found = text.encode(self.prompts(class_mask=every))  # (N * C, e), set by set
        return scatter_rows(found, every).unflatten(0, (self.sets, -1))


@TRAINER_REGISTRY.register()
class PLOT(PromptTrainer):
    """Several prompts per class, matched to the places of an image; each task by itself."""

    KEY = "PLOT"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N=Key(4, least=1),  # prompts per class
        N_CTX=Key(16, least=1),  # number of context tokens of each
        CSC=False,  # class-specific contexts
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
        EPS=Key(0.1, above=0),  # weight of the entropy of the plan
        MAX_ITER=Key(100, least=1),  # of Sinkhorn's iterations
        # mean change of a scaling vector at which they stop; 0: never before MAX_ITER
        THRESH=Key(0.01, least=0),
        UNIFORM=False,  # no transport: every place is matched to every prompt alike
    )
    image_outputs = frozenset({"global", "local"})

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return PromptSets(options, space, text)

    def forward(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        """Logits (B, C): similarity of places and prompts under the transport plan."""
        options = self.cfg.TRAINER.PLOT
        places = F.normalize(features["local"].float(), dim=-1)  # (B, p, e)
        text = text_features
        if text is None:
            text = self.model.text_features(places, class_mask)  # (N, C, e)
        with torch.autocast(places.device.type, enabled=False):  # amp would round the products
            similarity = torch.einsum("bpe,nce->bcpn", places, text)
            if options.UNIFORM:
                score = similarity.mean((2, 3))
            else:
                cost = 1 - similarity.detach()  # the plan is held fixed in the gradient
                plan = transport_plan(cost, options.EPS, options.MAX_ITER, options.THRESH)
                score = (plan * similarity).sum((2, 3))
            return ModelOutput(self.clip.logit_scale.float().exp() * score, text)

    def method_name(self) -> str:
        return "PLOT (uniform plan)" if self.cfg.TRAINER.PLOT.UNIFORM else "PLOT"


@torch.no_grad()
def transport_plan(
    cost: torch.Tensor, eps: float, max_iter: int = 100, thresh: float = 1e-2
) -> torch.Tensor:
    """Sinkhorn's plan (..., p, n) between uniform weights of p places and n prompts.

    plan = diag(r) exp(-cost / eps) diag(c), whose columns sum to 1 / n, and whose rows come to sum
    to 1 / p. Each pair of image and class stops by itself, when r changes by less than ``thresh``
    in the mean, so that no plan depends on what else is in the batch. Computed with the logarithms
    of r and c: exp(-cost / eps) underflows in half precision, and for a small ``eps`` in single.

    Args:
        cost: (..., p, n), fp32.
    """
    p, n = cost.shape[-2:]
    log_k = -cost / eps
    log_r = cost.new_zeros(cost.shape[:-1])  # (..., p)
    log_c = cost.new_zeros(*cost.shape[:-2], n)
    going = torch.ones_like(log_r[..., 0], dtype=torch.bool)  # (...)
    for _ in range(max_iter):
        next_r = -math.log(p) - (log_k + log_c[..., None, :]).logsumexp(-1)
        next_c = -math.log(n) - (log_k + next_r[..., None]).logsumexp(-2)
        change = (next_r.exp() - log_r.exp()).abs().mean(-1)
        log_r = torch.where(going[..., None], next_r, log_r)
        log_c = torch.where(going[..., None], next_c, log_c)
        going = going & ~(change < thresh)
        if not going.any():
            break
    return (log_r[..., None] + log_k + log_c[..., None, :]).exp()
