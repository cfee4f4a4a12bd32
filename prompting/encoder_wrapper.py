"""A text encoder around another one, for wrappers that change how prompts are encoded."""

from __future__ import annotations

import torch

from clip import Tokenizer
from clip.text import Prompts
from clip.text_encoder import TextEncoder


class EncoderWrapper(TextEncoder):
    """Forwards everything to another encoder; subclasses override :meth:`encode`."""

    def __init__(self, encoder: TextEncoder):
        self.encoder = encoder

    @property
    def context_length(self) -> int:
        return self.encoder.context_length

    @property
    def width(self) -> int:
        return self.encoder.width

    @property
    def out_dim(self) -> int:
        return self.encoder.out_dim

    @property
    def layers(self) -> int:
        return self.encoder.layers

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def tokenizer(self) -> Tokenizer:
        return self.encoder.tokenizer

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        return self.encoder.tokenize(texts)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.encoder.embed(tokens)

    def encode(self, prompts: Prompts) -> torch.Tensor:
        return self.encoder.encode(prompts)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return self.encoder.encode_text(texts)
