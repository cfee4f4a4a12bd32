"""The naive step of methods with prompts in both towers: open_clip's blocks in a plain loop.

As in the released code, every prompt has the full context length, and PromptSRC runs its frozen
image tower in every step.
"""

from __future__ import annotations

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainDeepStep:
    """A training step of IVLP, VPT, MaPLe or PromptSRC on one task, in fp32.

    Args:
        model: from :func:`benchmarks._plain.plain_clip`.
        classes: names.
        learned: a state dict of our prompter.
        words: fixed words (p, d) behind the context.
        text: (C, e) normalised features of a fixed text, if no context is learned.
        anchors: (C, e) normalised frozen text features; None without PromptSRC's losses.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: tuple[str, ...],
        learned: dict[str, Tensor],
        words: Tensor | None,
        text: Tensor | None,
        anchors: Tensor | None,
        lr: float,
    ):
        self.model, self.words, self.fixed, self.anchors = model, words, text, anchors
        self.learned = {k: v.detach().clone().requires_grad_() for k, v in learned.items()}
        if words is not None:
            length = len(self.learned["contexts.ctx"]) + len(words)
            names = [name.replace("_", " ") for name in classes]
            self.tokens = open_clip.tokenize([f"{'X ' * length}{name}." for name in names])
        self.optim = torch.optim.SGD(self.learned.values(), lr, momentum=0.9, weight_decay=5e-4)

    def contexts(self) -> list[Tensor]:
        """Contexts (m, d) of the text blocks."""
        return [self.learned["contexts.ctx"], *self.learned["contexts.deep"]]

    def image_tokens(self) -> list[Tensor]:
        """Tokens (m, V) of the image blocks."""
        if "tokens" in self.learned:
            return list(self.learned["tokens"])
        pairs = [
            (self.learned[f"couplings.{i}.weight"], self.learned[f"couplings.{i}.bias"])
            for i in range(len(self.contexts()))
        ]
        return [F.linear(c, *pair) for c, pair in zip(self.contexts(), pairs, strict=True)]

    def text(self) -> Tensor:
        """Text features (C, e), normalised."""
        if self.fixed is not None:
            return self.fixed
        model, contexts = self.model, self.contexts()
        start = contexts[0] if self.words is None else torch.cat([contexts[0], self.words])
        x = model.token_embedding(self.tokens)  # (C, 77, d)
        x = torch.cat([x[:, :1], start.expand(len(x), -1, -1), x[:, 1 + len(start) :]], 1)
        x = x + model.positional_embedding
        for i, block in enumerate(model.transformer.resblocks):
            if 0 < i < len(contexts):
                own = contexts[i].expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], own, x[:, 1 + own.shape[1] :]], 1)
            x = block(x, attn_mask=model.attn_mask)
        x = model.ln_final(x)[torch.arange(len(x)), self.tokens.argmax(1)]
        return F.normalize(x @ model.text_projection, dim=-1)

    def image(self, images: Tensor) -> Tensor:
        """Image features (B, e), normalised."""
        visual, tokens = self.model.visual, self.image_tokens()
        x = visual._embeds(images)
        own = x.shape[1]
        x = torch.cat([x, visual.ln_pre(tokens[0]).expand(len(x), -1, -1)], 1)
        for i, block in enumerate(visual.transformer.resblocks):
            if 0 < i < len(tokens):
                x = torch.cat([x[:, :own], tokens[i].expand(len(x), -1, -1)], 1)
            x = block(x)
        return F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)

    def __call__(self, images: Tensor, label: Tensor) -> float:
        """One optimizer step; the loss."""
        text, image = self.text(), self.image(images)
        scale = self.model.logit_scale.exp()
        logits = scale * image @ text.T
        loss = F.cross_entropy(logits, label)
        if self.anchors is not None:
            with torch.no_grad():
                frozen = F.normalize(self.model.encode_image(images), dim=-1)
                wanted = (scale * frozen @ self.anchors.T).log_softmax(1)
            own = logits.log_softmax(1)
            loss = loss + 25 * F.l1_loss(text, self.anchors) + 10 * F.l1_loss(image, frozen)
            loss = loss + F.kl_div(own, wanted, reduction="sum", log_target=True) / own.numel()
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        return loss.item()
