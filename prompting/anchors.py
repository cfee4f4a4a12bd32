"""Losses that hold prompts near the frozen CLIP. https://arxiv.org/abs/2307.06948"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clip import CLIP
from clip.text import index_rows
from dassl.utils import distributed

from .prompt_learner import mask_to_indices
from .prompted_clip import PromptedCLIP
from .prompter import ModelOutput


def imagenet_templates() -> tuple[str, ...]:
    """CLIP's 80 templates for ImageNet, with {} for the class."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES  # not needed at start-up

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def teacher_features(clip: CLIP, batch: dict) -> torch.Tensor:
    """Normalised features (B, e), fp32, of a batch's images in the frozen tower, stored or not."""
    found = batch.get("teacher")
    if found is None:
        with torch.no_grad():
            found = clip.encode_outputs(batch["img"].to(clip.dtype))["global"]
        found = distributed.gather_rows(found, len(batch["label"]))
    return F.normalize(found.float(), dim=-1)


def anchor_losses(
    model: PromptedCLIP,
    output: ModelOutput,
    image: torch.Tensor,
    text: torch.Tensor,
    columns: torch.Tensor | None = None,
    class_mask: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Distances of a model's features and probabilities to those of the frozen CLIP.

    "text" and "image" are mean absolute differences of normalised features; "logits" is the
    divergence sum softmax(z0) (log softmax(z0) - log softmax(z)) / (B C), z0 the frozen logits;
    with ``columns`` the softmax of an image is over these, and C is their number.

    Args:
        image: (B, e) frozen image features, normalised.
        text: (C, e) frozen text features, normalised.
        columns: (B, C) mask of the classes of each image's task; None: all are.
        class_mask: (C,) mask of the classes that ``output`` has text features of; the others are
            left out. None: all.
    """
    frozen, own = model.score(image, text), output.logits  # (B, C)
    if columns is None:
        columns = torch.ones_like(own, dtype=torch.bool)
    own_text = output.text_features
    if class_mask is not None:
        columns = columns & class_mask.to(columns.device, non_blocking=True)
        chosen = mask_to_indices(class_mask)
        own_text, text = index_rows(own_text, chosen), index_rows(text, chosen)
    lowest = torch.finfo(own.dtype).min
    frozen, own = (z.masked_fill(~columns, lowest).log_softmax(dim=1) for z in (frozen, own))
    divergence = (frozen.exp() * (frozen - own)).masked_fill(~columns, 0).sum(dim=1)  # (B,)
    return {
        "text": (own_text - text).abs().mean(),
        "image": (output.image_features - image).abs().mean(),
        "logits": (divergence / columns.sum(dim=1)).mean(),
    }
