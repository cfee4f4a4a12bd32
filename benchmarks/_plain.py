"""The naive side: open_clip's own model in plain loops, sharing no code with the other side.

Every image is read and encoded whenever it is needed, and every prompt goes through the text
tower at the full context length, as in CoOp's and SoftCPT's released code.
"""

from __future__ import annotations

import copy

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms


def plain_clip(config: dict, state: dict, half: bool = False) -> nn.Module:
    """open_clip's model of a configuration, with these weights."""
    config = {key: copy.deepcopy(value) for key, value in config.items() if key != "custom_text"}
    model = open_clip.CLIP(**config, cast_dtype=torch.float16 if half else None)
    model.load_state_dict(state)
    if half:
        open_clip.model.convert_weights_to_lp(model, torch.float16)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def plain_features(
    model: nn.Module, paths: list[str], side: int, mean, std, mode: str = "bicubic", batch: int = 64
) -> Tensor:
    """Image features (n, e): read, resize, crop, normalise, encode."""
    mode = transforms.InterpolationMode(mode)
    steps = [transforms.Resize(side, mode), transforms.CenterCrop(side), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(mean, std)])
    found = []
    for start in range(0, len(paths), batch):
        images = [transform(Image.open(p).convert("RGB")) for p in paths[start : start + batch]]
        found.append(model.encode_image(torch.stack(images)))
    return torch.cat(found)


class PlainStep:
    """A training step of SoftCPT or of shared contexts (CoOp-MT).

    Args:
        model: from :func:`plain_clip`.
        tasks, classes: names; ``owner`` (C,) is the task of each class.
        learned: "U" (m, d) or (T, m, d), "V" None, (m, d) or (C, m, d), and "W" for SoftCPT;
            "ctx" (m, d) for CoOp-MT.
        made: context tokens that the meta network makes.
    """

    def __init__(self, model, tasks, classes, owner, learned, made=16, lr=0.002):
        self.model, self.owner = model, owner
        self.learned = {k: v.clone().requires_grad_() for k, v in learned.items()}
        self.device = owner.device
        sizes = {k: v.shape[-2] for k, v in self.learned.items() if k in ("U", "V", "ctx")}
        self.task_tokens = self._tokens(tasks, sizes.get("U", 0))
        self.class_tokens = self._tokens(classes, sizes.get("V", 0))
        self.final_tokens = self._tokens(classes, sizes.get("ctx", made))
        self.optim = torch.optim.SGD(self.learned.values(), lr, momentum=0.9, weight_decay=5e-4)

    def _tokens(self, names: list[str], contexts: int) -> Tensor:
        filled = [f"{'X ' * contexts}{name}." for name in names]
        return open_clip.tokenize(filled).to(self.device)

    def encode(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Text features (n, e) of prompts whose first words are a context (m, d) or (n, m, d)."""
        model = self.model
        x = model.token_embedding(tokens)  # (n, 77, d)
        context = context.expand(len(x), *context.shape[-2:]).to(x.dtype)
        x = torch.cat([x[:, :1], context, x[:, 1 + context.shape[1] :]], dim=1)
        x = (x + model.positional_embedding).to(model.transformer.get_cast_dtype())
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
        return x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection.to(x.dtype)

    def text(self) -> Tensor:
        """Text features (C, e) of all classes, normalised."""
        learned = self.learned
        if "ctx" in learned:
            return F.normalize(self.encode(self.final_tokens, learned["ctx"]).float(), dim=-1)
        joined = self.encode(self.task_tokens, learned["U"]).float()[self.owner]  # (C, e)
        if "V" in learned:
            cls = self.encode(self.class_tokens, learned["V"]).float()
            joined = torch.cat([cls, joined], dim=1)
        width = self.model.positional_embedding.shape[1]
        contexts = (joined @ learned["W"]).unflatten(-1, (-1, width))  # (C, m, d)
        return F.normalize(self.encode(self.final_tokens, contexts).float(), dim=-1)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, C) of normalised image features."""
        return self.model.logit_scale.exp().float() * x @ self.text().T

    def loss(self, images: Tensor, label: Tensor, task: Tensor) -> Tensor:
        """Cross-entropy within the tasks, summed and divided by the batch."""
        with torch.no_grad():
            dtype = self.model.visual.conv1.weight.dtype
            x = F.normalize(self.model.encode_image(images.to(dtype)).float(), dim=-1)
        logits = self.logits(x)
        total = 0.0
        for t in task.unique():
            rows, columns = task == t, self.owner == t
            total += F.cross_entropy(logits[rows][:, columns], label[rows], reduction="sum")
        return total / len(label)

    def __call__(self, images: Tensor, label: Tensor, task: Tensor) -> float:
        """One optimizer step; the loss."""
        loss = self.loss(images, label, task)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        return loss.item()


class PlainConditionalStep(PlainStep):
    """A training step of CoCoOp on one task, image by image as in the released code.

    ``learned`` also holds the meta-net's two layers: "W1", "b1", "W2" and "b2".
    """

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, C) of normalised image features, which shift the context."""
        hidden = F.relu(F.linear(x, self.learned["W1"], self.learned["b1"]))
        shifts = F.linear(hidden, self.learned["W2"], self.learned["b2"])  # (B, d)
        scale, rows = self.model.logit_scale.exp().float(), []
        for feature, shift in zip(x, shifts, strict=True):
            text = self.encode(self.final_tokens, self.learned["ctx"] + shift).float()
            rows.append(scale * F.normalize(text, dim=-1) @ feature)
        return torch.stack(rows)
