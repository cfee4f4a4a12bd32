"""A frozen CLIP whose text features come from learned prompts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from clip import TextEncoder
from clip.text import TextGraphs, index_rows
from dassl.utils import Stopwatch, distributed, lockstep

from .feature_loader import field_of
from .joined_text import JoinedEncoder
from .precision import to_device
from .prompt_learner import scatter_rows
from .prompter import Features, ModelOutput, Prompter
from .questions import Questions
from .sharding import ShardedEncoder
from .text_chunks import ChunkedText


class PromptedCLIP(nn.Module):
    """Logits of images against the text features that a prompter makes.

    Args:
        prompter: the learned module.
        outputs: names of the image tower's outputs that are needed, see ``CLIP.encode_outputs``.
        text_chunk: rows of text per chunk, see :class:`~prompting.text_chunks.ChunkedText`.
        questions: inserted in front of every answer; None for tasks without questions.
        graphs: whether text steps may be replayed as CUDA graphs.
    """

    def __init__(
        self,
        clip_model: nn.Module,
        prompter: Prompter,
        outputs: frozenset[str] = frozenset({"global"}),
        text_chunk: int | None = None,
        questions: Questions | None = None,
        graphs: bool = False,
    ):
        super().__init__()
        self.questions = questions
        self.text = ChunkedText(clip_model.text_tower, text_chunk)
        if graphs and distributed.world_size() == 1:
            self.text.tower.graphs = TextGraphs()
        self.clip, self.prompter, self.outputs = clip_model, prompter, outputs

    @property
    def text_tower(self) -> TextEncoder:
        """The frozen text tower; several processes share its work, several runs join theirs."""
        text = self.text.encoder
        if distributed.world_size() > 1:
            return ShardedEncoder(text)
        return JoinedEncoder(text) if lockstep.current() else text

    def forward(self, images: torch.Tensor, class_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, C) of images (B, 3, H, W)."""
        return self.logits(self.encode_image(images), class_mask)

    def encode_image(self, images: torch.Tensor, task: torch.Tensor | None = None) -> Features:
        """Outputs of the image tower, un-normalised; see :meth:`Prompter.encode_image`."""
        images = images.to(self.clip.dtype)
        return self.prompter.encode_image(self.clip, images, self.outputs, task)

    def features_of(self, batch: dict, clock: Stopwatch) -> Features:
        """Outputs of the image tower for a batch: its stored ones, or computed from its images.

        Several processes share the computation.
        """
        device = self.clip.device
        if "feat" in batch:
            return {name: to_device(batch[field_of(name)], device) for name in self.outputs}
        images = len(batch["label"])
        task = index_rows(batch["task"], torch.tensor(distributed.padded_share(images)))
        with clock.part("image"):
            found = self.encode_image(to_device(batch["img"], device), task)
        return {name: distributed.gather_rows(x, images) for name, x in found.items()}

    def logits(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B, C), fp32, of image features; see :meth:`forward_features`."""
        return self.forward_features(features, class_mask, text_features).logits

    def forward_features(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        """Logits and both kinds of features, from the image tower's outputs.

        Args:
            class_mask: (C,) classes to score; None all.
            text_features: (C, e) of :meth:`fixed_text_features`; None encodes the prompts.
        """
        x = F.normalize(features["global"].float(), dim=-1)
        if self.questions is not None:
            logits = self.questions.logits(self, x, features["question"], class_mask)
            return ModelOutput(logits, image_features=x)
        if text_features is None:
            text_features = self.text_features(x, class_mask)
        return ModelOutput(self.score(x, text_features, class_mask), text_features, x)

    def score(
        self, x: torch.Tensor, text: torch.Tensor, class_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, C), fp32, of normalised image (B, e) and text features (C, e) or (B, C, e).

        Args:
            class_mask: (C,) the k classes that text features (B, k, e) belong to; other logits are
                zero.
        """
        equation = "be,ce->bc" if text.dim() == 2 else "be,bce->bc"
        with torch.autocast(x.device.type, enabled=False):  # amp would round the products
            logits = self.scale(torch.einsum(equation, x, text))
        if class_mask is None or logits.shape[1] == len(class_mask):
            return logits
        return scatter_rows(logits[..., None], class_mask)[..., 0]

    def scale(self, cosine: torch.Tensor) -> torch.Tensor:
        """Logits, fp32, from cosines: times CLIP's scale, plus its bias if it has one."""
        logits = self.clip.logit_scale.float().exp() * cosine
        bias = self.clip.logit_bias
        return logits if bias is None else logits + bias.float()

    def text_features(
        self,
        x: torch.Tensor,
        class_mask: torch.Tensor | None = None,
        text: TextEncoder | None = None,
    ) -> torch.Tensor:
        """Normalised text features (C, e) or (B, k, e), fp32, for image features x (B, e).

        Args:
            text: encodes the prompts; None takes :attr:`text_tower`.
        """
        return F.normalize(self.prompter(text or self.text_tower, x, class_mask).float(), dim=-1)

    @torch.no_grad()
    def fixed_text_features(self, class_mask: torch.Tensor | None = None) -> torch.Tensor | None:
        """Text features (C, e) for all images, which an evaluation computes once.

        None if they differ from image to image.
        """
        fixed = self.prompter.makes_text_features and not self.prompter.depends_on_image
        if not fixed or self.questions is not None:
            return None
        return self.text_features(torch.empty(0), class_mask)
