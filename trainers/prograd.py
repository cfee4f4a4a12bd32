"""ProGrad: prompt-aligned gradient for prompt tuning. https://arxiv.org/abs/2205.14865"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from prompting.precision import PRECISIONS
from prompting.prompt_learner import POSITIONS, ContextPrompter
from prompting.prompter import ModelOutput, Prompter

from ._base import PromptTrainer


@TRAINER_REGISTRY.register()
class ProGrad(PromptTrainer):
    """CoOp without the gradient part that opposes zero-shot CLIP's; each task separately."""

    KEY = "PROGRAD"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(16, least=1),  # number of context tokens
        CTX_INIT=False,  # start the last context tokens with the words of the template
        CSC=False,  # one context per class
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
        LAMBDA=Key(1.0, least=0),  # fraction of the opposing part that is removed
        T=Key(1.0, above=0),  # temperature of both sides of the divergence from zero-shot CLIP
        TEMPLATE="",  # zero-shot CLIP's, with {} for the class; empty: the dataset's own
    )
    free_options = ("LAMBDA", "T", "TEMPLATE")
    supports_distributed = False  # each process would project the gradient of its own images
    refused_labels = {"multi_label": "its divergence compares softmax probabilities"}
    uses_templates = True
    needs_all_classes = True  # the divergence is over all classes

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        prompter = ContextPrompter(options.with_values({"CTX_INIT": ""}), space, text)
        if options.CTX_INIT:
            template = options.TEMPLATE or space.tasks[0].templates[0]
            start_with_words(prompter.prompts.ctx, template, text)
        return prompter

    def compute_loss(
        self, output: ModelOutput, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy with the labels, and with zero-shot CLIP's probabilities ("match")."""
        losses = super().compute_loss(output, batch, class_mask)
        t = self.cfg.TRAINER.PROGRAD.T
        zero_shot = self.model.score(output.image_features, self.templates.features)  # (B, C)
        match = F.cross_entropy(output.logits / t, (zero_shot / t).softmax(dim=1))
        return {**losses, "match": t**2 * match}

    def backward(self, losses: dict[str, torch.Tensor]) -> None:
        """Set the gradient of each learned tensor: that of the loss, projected."""
        self.detect_anomaly(sum(losses.values()))
        learned = [p for p in self.model.prompter.parameters() if p.requires_grad]
        match, loss = (self.scaler.scale(losses[name]) for name in ("match", "loss"))
        directions = torch.autograd.grad(match, learned, retain_graph=True)
        gradients = torch.autograd.grad(loss, learned)
        for p, gradient, direction in zip(learned, gradients, directions, strict=True):
            p.grad = project(gradient, direction, self.cfg.TRAINER.PROGRAD.LAMBDA)


def project(gradient: torch.Tensor, direction: torch.Tensor, share: float) -> torch.Tensor:
    """The gradient, minus ``share`` of the part that opposes ``direction``.

    A zero direction changes nothing. Double precision, since the square of a small fp32 number
    can be zero in fp32.
    """
    g, u = gradient.double().flatten(), direction.double().flatten()
    against = (g @ u).clamp(max=0) / (u @ u).clamp(min=torch.finfo(u.dtype).tiny)
    return (g - share * against * u).view_as(gradient).to(gradient.dtype)


@torch.no_grad()
def start_with_words(ctx: torch.Tensor, template: str, text) -> None:
    """Set the last tokens of contexts (m, d) or (C, m, d) to the template's words before {}.

    The tokens before them become zero. A template that begins with {} leaves ``ctx`` unchanged.

    Raises:
        UserError: more words than context tokens.
    """
    words = text.tokenizer.encode(template.partition("{}")[0])
    if len(words) > ctx.shape[-2]:
        raise UserError(
            f"the template {template!r} has {len(words)} tokens before {{}}, but "
            f"TRAINER.PROGRAD.N_CTX is {ctx.shape[-2]}: raise it, or set CTX_INIT False"
        )
    if len(words):
        ctx.zero_()
        ids = torch.tensor(words, device=text.device)
        ctx[..., -len(words) :, :] = text.embed(ids).to(ctx)
