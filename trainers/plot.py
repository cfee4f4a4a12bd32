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
    """Every class name in each of N learned contexts."""

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder):
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
        mask = None if class_mask is None else class_mask.repeat(self.sets)  # (N * C,)
        features = text.encode(self.prompts(class_mask=mask))  # (N * C, e), set by set
        return scatter_rows(features, mask).unflatten(0, (self.sets, -1))


@TRAINER_REGISTRY.register()
class PLOT(PromptTrainer):
    """Several prompts per class, matched to image positions; each task separately."""

    KEY = "PLOT"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N=Key(4, least=1),  # prompts per class
        N_CTX=Key(16, least=1),  # number of context tokens of each
        CSC=False,  # contexts of each class
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
        EPS=Key(0.1, above=0),  # weight of the plan's entropy
        MAX_ITER=Key(100, least=1),  # iterations of Sinkhorn's algorithm
        # stop when the mean change of a scaling vector is smaller; 0: always MAX_ITER iterations
        THRESH=Key(0.01, least=0),
        UNIFORM=False,  # no transport: all positions and prompts have equal weight
        # add the cosine of the whole image and the mean of the prompts; published on ImageNet
        GLOBAL_TERM=False,
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
        """Logits (B, C): similarity of positions and prompts under the transport plan."""
        options = self.cfg.TRAINER.PLOT
        positions = F.normalize(features["local"].float(), dim=-1)  # (B, p, e)
        text = text_features
        if text is None:
            text = self.model.text_features(positions, class_mask)  # (N, C, e)
        with torch.autocast(positions.device.type, enabled=False):  # amp would round the products
            similarity = torch.einsum("bpe,nce->bcpn", positions, text)
            if options.UNIFORM:
                score = similarity.mean((2, 3))
            else:
                cost = 1 - similarity.detach()  # no gradient through the plan
                plan = transport_plan(cost, options.EPS, options.MAX_ITER, options.THRESH)
                score = (plan * similarity).sum((2, 3))
            if options.GLOBAL_TERM:
                image = F.normalize(features["global"].float(), dim=-1)  # (B, e)
                score = score + image @ F.normalize(text.mean(dim=0), dim=-1).T
            return ModelOutput(self.model.scale(score), text)

    def method_name(self) -> str:
        return "PLOT (uniform plan)" if self.cfg.TRAINER.PLOT.UNIFORM else "PLOT"


@torch.no_grad()
def transport_plan(
    cost: torch.Tensor, eps: float, max_iter: int = 100, thresh: float = 1e-2
) -> torch.Tensor:
    """Sinkhorn's plan (..., p, n) between uniform weights of p positions and n prompts.

    plan = diag(r) exp(-cost / eps) diag(c); its columns sum to 1 / n, its rows approach 1 / p. Each
    pair of image and class stops when the mean change of r is below ``thresh``, independently of
    the rest of the batch. Uses the logarithms of r and c, since exp(-cost / eps) underflows in
    half precision, and with a small ``eps`` in fp32.

    Args:
        cost: (..., p, n), fp32.
    """
    p, n = cost.shape[-2:]
    log_k = -cost / eps
    log_r = cost.new_zeros(cost.shape[:-1])  # (..., p)
    log_c = cost.new_zeros(*cost.shape[:-2], n)
    active = torch.ones_like(log_r[..., 0], dtype=torch.bool)  # (...)
    for _ in range(max_iter):
        next_r = -math.log(p) - (log_k + log_c[..., None, :]).logsumexp(-1)
        next_c = -math.log(n) - (log_k + next_r[..., None]).logsumexp(-2)
        change = (next_r.exp() - log_r.exp()).abs().mean(-1)
        log_r = torch.where(active[..., None], next_r, log_r)
        log_c = torch.where(active[..., None], next_c, log_c)
        active = active & ~(change < thresh)
        if not active.any():
            break
    return (log_r[..., None] + log_k + log_c[..., None, :]).exp()
