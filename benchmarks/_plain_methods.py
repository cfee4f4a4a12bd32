"""Naive training steps of single methods: open_clip's own modules in a plain loop.

As in the released code, every prompt has the full context length and every image is encoded in
every step; PromptSRC runs its frozen image tower beside the prompted one.
"""

from __future__ import annotations

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainMethod:
    """A training step on one task, with frozen towers and given text features.

    Args:
        model: from :func:`benchmarks._plain.plain_clip`.
        classes: names.
        learned: a state dict of our prompter.
        fixed: frozen tensors by name, see the classes below.
        amp: whether to compute in mixed precision, else in fp32.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: tuple[str, ...],
        learned: dict[str, Tensor],
        fixed: dict[str, Tensor],
        lr: float,
        amp: bool = False,
    ):
        self.model, self.fixed, self.amp = model, fixed, amp
        self.device = model.logit_scale.device
        self.names = [name.replace("_", " ") for name in classes]
        self.learned = {k: v.detach().clone().requires_grad_() for k, v in learned.items()}
        self.optim = torch.optim.SGD(self.groups(lr), lr, momentum=0.9, weight_decay=5e-4)

    def groups(self, lr: float) -> list[dict]:
        """Groups of learned tensors, as torch takes them."""
        return [{"params": list(self.learned.values())}]

    def tokens(self, template: str) -> Tensor:
        """Token ids (C, 77) of all names in a template."""
        return open_clip.tokenize([template.format(name) for name in self.names]).to(self.device)

    def encode_prompts(self, contexts: dict[int, Tensor], words: Tensor | None = None) -> Tensor:
        """Text features (C, e) of names behind a context, which is overwritten before later blocks.

        Args:
            contexts: (m, d) or (C, m, d) by index of the block; of block 0, the first tokens.
            words: fixed words (p, d) behind the context.
        """
        model = self.model
        start = contexts[0] if words is None else torch.cat([contexts[0], words])
        tokens = self.tokens(f"{'X ' * len(start)}{{}}.")
        x = model.token_embedding(tokens)  # (C, 77, d)
        x = torch.cat([x[:, :1], start.expand(len(x), -1, -1), x[:, 1 + len(start) :]], 1)
        x = x + model.positional_embedding
        for i, block in enumerate(model.transformer.resblocks):
            if i and i in contexts:
                own = contexts[i].expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], own, x[:, 1 + own.shape[1] :]], 1)
            x = block(x, attn_mask=model.attn_mask)
        x = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(1)]
        return x @ model.text_projection

    def text(self) -> Tensor:
        """Text features (C, e), not normalised."""
        return self.fixed["text"]

    def image(self, images: Tensor) -> Tensor:
        """Image features (B, e), not normalised."""
        with torch.no_grad():
            return self.model.encode_image(images)

    def loss(self, images: Tensor, label: Tensor) -> Tensor:
        """What is minimised: here the cross-entropy of the cosines."""
        return F.cross_entropy(self.logits(self.image(images), self.text()), label)

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Scaled cosines (B, C) of features."""
        scale = self.model.logit_scale.exp()
        return scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T

    def __call__(self, images: Tensor, label: Tensor) -> float:
        """One optimizer step; the loss."""
        with torch.autocast(self.device.type, enabled=self.amp):
            loss = self.loss(images, label)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        return loss.item()


class PlainDeep(PlainMethod):
    """VPT, IVLP, MaPLe or, with "anchors" (C, e), PromptSRC; "words" stand behind the context."""

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
        if "text" in self.fixed:
            return self.fixed["text"]
        return self.encode_prompts(dict(enumerate(self.contexts())), self.fixed["words"])

    def image(self, images: Tensor) -> Tensor:
        visual, tokens = self.model.visual, self.image_tokens()
        x = visual._embeds(images)
        own = x.shape[1]
        x = torch.cat([x, visual.ln_pre(tokens[0]).expand(len(x), -1, -1)], 1)
        for i, block in enumerate(visual.transformer.resblocks):
            if 0 < i < len(tokens):
                x = torch.cat([x[:, :own], tokens[i].expand(len(x), -1, -1)], 1)
            x = block(x)
        return visual.ln_post(x[:, 0]) @ visual.proj

    def loss(self, images: Tensor, label: Tensor) -> Tensor:
        text, image = self.text(), self.image(images)
        logits = self.logits(image, text)
        loss = F.cross_entropy(logits, label)
        if "anchors" not in self.fixed:
            return loss
        with torch.no_grad():
            frozen = self.model.encode_image(images)
            target = self.logits(frozen, self.fixed["anchors"]).log_softmax(1)
        own = logits.log_softmax(1)
        text, image, frozen = (F.normalize(x, dim=-1) for x in (text, image, frozen))
        loss = loss + 25 * F.l1_loss(text, self.fixed["anchors"]) + 10 * F.l1_loss(image, frozen)
        return loss + F.kl_div(own, target, reduction="sum", log_target=True) / own.numel()


class PlainTCP(PlainMethod):
    """TCP: tokens of the class, from its feature "class" (C, e), before block ``LAYER``."""

    LAYER = 8

    def text(self) -> Tensor:
        layers = [
            self.learned[f"class_tokens.{i}.{kind}"] for i in (0, 2) for kind in ("weight", "bias")
        ]
        hidden = F.linear(self.fixed["class"], *layers[:2])
        made = F.linear(hidden * torch.sigmoid(1.702 * hidden), *layers[2:])
        ctx = self.learned["prompts.ctx"]
        layer = min(self.LAYER, len(self.model.transformer.resblocks) - 1)
        return self.encode_prompts({0: ctx, layer: made.unflatten(1, ctx.shape)})

    def loss(self, images: Tensor, label: Tensor) -> Tensor:
        text = self.text()
        loss = F.cross_entropy(self.logits(self.image(images), text), label)
        return loss + 8 * (1 - F.cosine_similarity(text, self.fixed["class"])).mean()


class PlainTaskRes(PlainMethod):
    """TaskRes: a residual on the frozen text features "base" (C, e)."""

    def text(self) -> Tensor:
        return self.fixed["base"] + 0.5 * self.learned["residual"]


class PlainDePT(PlainMethod):
    """CoOp with DePT's head, whose rate is 6.5 times that of the context."""

    def groups(self, lr: float) -> list[dict]:
        head = [p for name, p in self.learned.items() if name.startswith("dept.")]
        return [{"params": [self.learned["prompts.ctx"]]}, {"params": head, "lr": 6.5 * lr}]

    def loss(self, images: Tensor, label: Tensor) -> Tensor:
        text, image = self.encode_prompts({0: self.learned["prompts.ctx"]}), self.image(images)
        head = {name.removeprefix("dept."): p for name, p in self.learned.items()}
        scaled = [head["image_scale"] * image + head["image_shift"]]
        scaled += [head["text_scale"] * text[label] + head["text_shift"]]
        found = F.linear(torch.cat(scaled), head["classifier.weight"], head["classifier.bias"])
        cosine = F.cross_entropy(self.logits(image, text), label)
        return 0.3 * cosine + 0.7 * F.cross_entropy(found, label.repeat(2))


def plain_lp_plus_plus(features: Tensor, label: Tensor, text: Tensor, state: dict, iterations: int):
    """(w, b, alpha) of LP++ after full-batch steps with autograd's gradients.

    Args:
        features: (N, e). text: (C, e) normalised. state: tensors that our probe starts with.
    """
    x, classes = F.normalize(features, dim=-1), range(len(text))
    own = [x[label == c] for c in classes]
    weight = torch.stack([rows.sum(0) for rows in own]).requires_grad_()
    cosines = torch.stack([(own[c] @ text[c]).mean() for c in classes])
    alpha = torch.full_like(cosines, 250 * cosines.mean().item()).requires_grad_()
    bias = state["bias"].detach().clone().requires_grad_()
    rate = 4 * len(x) / torch.linalg.matrix_norm(x, 2).item() ** 2
    alpha_rate = len(x) / (4 * (x @ text.T).square().sum(0).max().item())
    steps = torch.optim.SGD([weight, bias], rate, momentum=0.9)
    for number in range(1, iterations + 1):
        logits = x @ weight.T + bias + alpha * (x @ text.T)
        steps.zero_grad()
        alpha.grad = None
        F.cross_entropy(logits, label).backward()
        steps.step()
        if number % 10 == 0:
            with torch.no_grad():
                alpha -= alpha_rate * alpha.grad
    return [weight.detach(), bias.detach(), alpha.detach()]
