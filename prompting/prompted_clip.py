"""A frozen CLIP whose text features come from learned prompts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from clip.text import TextGraphs, TextTower
from dassl.utils import distributed

from .questions import Questions
from .sharding import DividedText
from .stored_features import Features
from .text_chunks import TextInChunks


class PromptedCLIP(nn.Module):
    """Logits of images against the text features that a prompter makes.

    The prompter owns what is learned and nothing else; it is handed the frozen text tower:
    ``prompter(text, image_features, class_mask)`` returns (C, e), or (B, C, e) if its prompts
    depend on the image (it then says so with ``conditional = True``). ``class_mask`` (C,) marks the
    classes that are needed, None all; the output has all C rows, and masked ones may be zero.
    """

    def __init__(
        self,
        clip_model: nn.Module,
        prompter: nn.Module,
        outputs: frozenset[str] = frozenset({"global"}),
        text_chunk: int | None = None,
        graphs: bool = False,
    ):
        super().__init__()
        self.questions: Questions | None = None  # prompts then hold the one on the image
        self.text = TextInChunks(clip_model.text_tower, text_chunk)
        if graphs and distributed.world_size() == 1:
            self.text.tower.graphs = TextGraphs()
        self.clip, self.prompter, self.outputs = clip_model, prompter, outputs
        self._text: torch.Tensor | None = None
        self._tested: torch.Tensor | None = None
        self.scored_text: torch.Tensor | None = None  # of the latest logits, for losses on it

    @property
    def text_tower(self) -> TextTower:
        """The frozen text tower; of several processes each encodes its share of the rows."""
        text = self.text.tower
        return text if distributed.world_size() == 1 else DividedText(text)

    def forward(self, images: torch.Tensor, class_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, C) of images (B, 3, H, W)."""
        return self.logits(self.encode_image(images), class_mask)

    def encode_image(self, images: torch.Tensor) -> Features:
        """What the frozen image tower gives, un-normalised: see ``CLIP.encode_outputs``."""
        with torch.no_grad():
            return self.clip.encode_outputs(images.to(self.clip.dtype), self.outputs)

    def logits(self, features: Features, class_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, C), fp32, of image features; their text stays as ``scored_text``."""
        x = F.normalize(features["global"].float(), dim=-1)
        if self.questions is not None:
            return self.questions.logits(self, x, features["question"], class_mask)
        self.scored_text = self.text_features(x, class_mask)
        return self.score(x, self.scored_text)

    def score(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Logits (B, C), fp32, of normalised image (B, e) and text features (C, e) or (B, C, e)."""
        equation = "be,ce->bc" if text.dim() == 2 else "be,bce->bc"
        with torch.autocast(x.device.type, enabled=False):  # amp would round the products
            return self.clip.logit_scale.float().exp() * torch.einsum(equation, x, text)

    def text_features(
        self, x: torch.Tensor, class_mask: torch.Tensor | None = None, text: nn.Module | None = None
    ) -> torch.Tensor:
        """Normalised text features (C, e) or (B, C, e), fp32, for images x (B, e), by ``text``."""
        if self._text is not None and class_mask is None:
            return self._text
        class_mask = self._tested if class_mask is None else class_mask
        return F.normalize(self.prompter(text or self.text_tower, x, class_mask).float(), dim=-1)

    @contextlib.contextmanager
    def frozen_text(self, class_mask: torch.Tensor | None = None) -> Iterator[None]:
        """Encode the prompts once for an evaluation, unless they differ from image to image.
        It reads the classes ``class_mask`` (C,); None all."""
        self._tested = class_mask
        if not getattr(self.prompter, "conditional", False) and self.questions is None:
            with torch.no_grad():
                self._text = self.text_features(torch.empty(0))
        try:
            yield
        finally:
            self._text = self._tested = None
