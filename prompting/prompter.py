"""The learned module of a method, and what a forward pass with it returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from clip import CLIP
from dassl.utils import counted

from .image_memory import Encode, announce, count_blocks, image_bytes

Features = dict[str, torch.Tensor]  # outputs of the image tower by name, un-normalised


class Prompter(nn.Module):
    """Turns class names into text features; owns exactly the learned tensors of a method.

    Called as ``prompter(text, image_features, class_mask)`` with the frozen text encoder and
    normalised image features (B, e), it returns text features (C, e), or (B, C, e) if they depend
    on the image. ``class_mask`` (C,) marks the classes that are needed, None all. (C, e) keeps all
    rows, and masked ones may be zero; (B, k, e) may leave them out and hold the k marked ones only.
    """

    depends_on_image = False  # whether text features differ from image to image
    adapts_visual = False  # whether weights of the image tower are learned
    makes_text_features = True  # False: a head scores image features without any text
    recompute_images = False  # COMPUTE.IMAGE_CHECKPOINT; the trainer sets it
    memory_announced = False  # whether the log says what memory the images of a step need

    def encode_image(
        self,
        clip: CLIP,
        images: torch.Tensor,
        outputs: frozenset[str],
        task: torch.Tensor | None = None,
    ) -> Features:
        """Outputs of the image tower, by default of the frozen one, for images (B, 3, H, W).

        The trainer of a prompter that overrides this overrides ``stored_features`` too.

        Args:
            images: in the tower's dtype.
            outputs: names of the outputs, see ``CLIP.encode_outputs``.
            task: (B,) task of each image, if known.
        """
        with torch.no_grad():
            return clip.encode_outputs(images, outputs)

    def announce_memory(self, clip: CLIP, encode: Encode, images: torch.Tensor, what: str) -> None:
        """Log, before the first step, what memory a step needs in an image tower that learns.

        Args:
            encode: see :func:`~prompting.image_memory.image_bytes`.
            images: of a step.
            what: about the images, in words.
        """
        if self.memory_announced or not (self.training and torch.is_grad_enabled()):
            return  # an export traces the model with gradients, but not in training mode
        count = len(images)  # not before: an export would fix the size of the batch
        self.memory_announced = True
        weights = [*clip.parameters(), *self.parameters()]
        sizes = image_bytes(encode, count, weights, count_blocks(clip))
        announce(*sizes, f"{counted(count, 'image')} {what}", self.recompute_images)

    def merged_weights(self, clip: CLIP) -> dict[str, torch.Tensor] | None:
        """All weights of ``clip`` by name, with what is learned inside its towers.

        None if nothing is, or if it is no change of weights. With these weights a plain CLIP
        encodes images and phrases as the method does.
        """


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass returns.

    Attributes:
        logits: (B, C), fp32.
        text_features: normalised, (C, e) or, of the k classes in the mask, (B, k, e); None if no
            text was used, or one per question.
        image_features: normalised global features (B, e); None if the method does not use them.
    """

    logits: torch.Tensor
    text_features: torch.Tensor | None = None
    image_features: torch.Tensor | None = None
