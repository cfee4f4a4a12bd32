"""A frozen CLIP under the names of OpenAI's model, over the tensors of an open_clip one."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from . import _image_prompts
from ._blocks import causal_mask, is_batch_first, run_blocks
from ._errors import CLIPError
from ._local import encode_local, has_local
from ._text_variants import HubTextTower, make_text_tower
from ._tokenizers import Tokenizer
from .text import TextTower


class SequenceFirstTransformer(nn.Module):
    """Text blocks over x (L, n, d) with their own causal mask, as in OpenAI's model."""

    def __init__(self, transformer: nn.Module, causal: bool):
        super().__init__()
        self.resblocks = transformer.resblocks
        self.batch_first = is_batch_first(transformer)
        self.causal = causal
        self.layers = len(self.resblocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = causal_mask(len(x), x.device, x.dtype) if self.causal else None
        return run_blocks(self, x.transpose(0, 1), mask).transpose(0, 1)


class CLIP(nn.Module):
    """Frozen image and text towers under OpenAI's names, always in eval mode.

    ``state_dict()`` has OpenAI's keys. ``text_tower`` encodes prompts given as embeddings.

    Args:
        source: an open_clip ``CLIP``, ``CustomTextCLIP`` or ``CoCa``; its tensors are
            shared, not copied.
        config: the architecture in open_clip's form; part of ``weights_hash``, since the shapes of
            the weights do not determine the activation and the number of heads.
        preprocess: ``mean``, ``std``, ``interpolation`` and ``resize_mode`` of the training images.
        name: the name by which the user loaded it.
    """

    text_tower: TextTower
    visual: Any  # an image tower of open_clip

    def __init__(
        self,
        source: nn.Module,
        config: dict,
        preprocess: dict,
        name: str = "",
        tokenizer: Tokenizer | None = None,
    ):
        super().__init__()
        text = getattr(source, "text", source)
        # not a registered child module: state_dict() would hold its weights twice
        object.__setattr__(self, "text_tower", make_text_tower(source, tokenizer, config))
        self.visual = source.visual
        if isinstance(self.text_tower, HubTextTower):  # nothing of it has OpenAI's names
            self.text = text
        else:
            self._name_text_tower(text)
        self.logit_scale = source.logit_scale
        self.logit_bias = getattr(source, "logit_bias", None)
        self.name = name
        self.config = config
        size = self.visual.image_size
        self.image_size = (size, size) if isinstance(size, int) else tuple(size)  # (h, w)
        self.image_mean = tuple(preprocess["mean"])
        self.image_std = tuple(preprocess["std"])
        self.interpolation = preprocess["interpolation"]
        self.resize_mode = preprocess.get("resize_mode", "shortest")
        self.visual.input_resolution = self.image_size[0]
        self.visual.output_dim = config["embed_dim"]
        self.requires_grad_(False)
        self.train(False)

    def _name_text_tower(self, text: nn.Module) -> None:
        """Give the parts of an open_clip text tower OpenAI's names."""
        self.transformer = SequenceFirstTransformer(text.transformer, self.text_tower.masked)
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        if getattr(text, "cls_emb", None) is not None:
            self.cls_emb = text.cls_emb

    def train(self, mode: bool = True) -> CLIP:
        """Do nothing: frozen towers stay in eval mode, batch statistics included."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the towers."""
        return self.text_tower.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.text_tower.device

    @property
    def context_length(self) -> int:
        """Most tokens of a prompt, SOS and EOT included."""
        return self.text_tower.context_length

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return len(self.text_tower.token_embedding.weight)

    @cached_property
    def weights_hash(self) -> str:
        """sha256 (hex) of architecture, names and tensors; the same in every precision.

        Tensors are hashed as fp32, which represents fp16 and bf16 files exactly. Computed before
        ``load_backbone`` rounds the weights.
        """
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            tensor = tensor.float() if tensor.is_floating_point() else tensor
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().cpu().numpy())
        return digest.hexdigest()

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Image features, (B, 3, H, W) -> (B, e), not normalised."""
        return self.visual(images.to(self.dtype))

    def check_outputs(self, outputs: frozenset[str]) -> None:
        """Refuse outputs that :meth:`encode_outputs` cannot give.

        Raises:
            CLIPError: this tower lacks an output.
        """
        known = {"global", "local"} if has_local(self.visual) else {"global"}
        if unknown := sorted(set(outputs) - known):
            hint = "; ResNets and plain ViTs have them" if unknown[0] == "local" else ""
            raise CLIPError(
                f"the image tower of {self.name} ({type(self.visual).__name__}) has no "
                f"{unknown[0]!r} features; it has: {', '.join(sorted(known))}{hint}"
            )

    def encode_outputs(
        self, images: torch.Tensor, outputs: frozenset[str] = frozenset({"global"})
    ) -> dict[str, torch.Tensor]:
        """The named outputs of the image tower for images (B, 3, H, W), not normalised.

        Args:
            outputs: "global" (B, e), which is always returned, and "local" (B, p, e), a feature
                for each of p image positions.

        Raises:
            CLIPError: an output that this tower does not have.
        """
        self.check_outputs(outputs)
        if "local" not in outputs:
            return {"global": self.encode_image(images)}
        pooled, local = encode_local(self.visual, images.to(self.dtype))
        return {"global": pooled, "local": local}

    @property
    def image_layers(self) -> int:
        """Number of blocks of the image tower that prompt tokens can stand before.

        Raises:
            CLIPError: it can take none.
        """
        return len(_image_prompts.blocks_of(self.visual, self.name))

    @property
    def image_width(self) -> int:
        """V, the width of the image tower's tokens.

        Raises:
            CLIPError: it can take no prompt tokens.
        """
        _image_prompts.blocks_of(self.visual, self.name)
        return _image_prompts.token_width(self.visual)

    def encode_prompted_image(
        self, images: torch.Tensor, tokens: dict[int, torch.Tensor], recompute: bool = False
    ) -> torch.Tensor:
        """Image features (B, e), not normalised, of images (B, 3, H, W) beside prompt tokens.

        Args:
            tokens: (m, V) or (B, m, V) by index of the block, from 0: see
                :func:`clip._image_prompts.encode_with_tokens`.
            recompute: compute the activations of each block again in the backward pass.

        Raises:
            CLIPError: tokens before a block that this tower lacks.
        """
        if beyond := [i for i in tokens if not 0 <= i < self.image_layers]:
            raise CLIPError(
                f"prompt tokens before block {beyond[0]}: the image tower of {self.name} has the "
                f"blocks 0 to {self.image_layers - 1}"
            )
        images = images.to(self.dtype)
        return _image_prompts.encode_with_tokens(self.visual, images, tokens, recompute)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Text features of token ids, (n, L) -> (n, e), not normalised."""
        return self.text_tower.encode_tokens(tokens)

    def forward(
        self, images: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of images against texts (B, n), and of texts against images (n, B)."""
        image = F.normalize(self.encode_image(images), dim=-1)  # (B, e)
        text = F.normalize(self.encode_text(tokens), dim=-1)  # (n, e)
        logits = self.logit_scale.exp() * image @ text.T
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        return logits, logits.T
