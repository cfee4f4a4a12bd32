"""The interface of text encoders: what prompts are tokenized, embedded and encoded with."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from ._tokenizers import Tokenizer
    from .text import Prompts


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen text encoder, as methods and prompters are given it.

    ``TextTower`` is one; ``prompting`` wraps it to divide, count or extend prompts.
    Nothing else of a tower may be used by a method.
    """

    @property
    @abstractmethod
    def context_length(self) -> int:
        """The most tokens of a prompt, SOS and EOT included."""

    @property
    @abstractmethod
    def width(self) -> int:
        """d, the width of token embeddings."""

    @property
    @abstractmethod
    def out_dim(self) -> int:
        """e, the width of text features."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """The number of blocks; a deep context may stand before each but the first."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the weights."""

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Words to token ids and back."""

    @abstractmethod
    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Token ids (n, L) at the full context length: SOS, words, EOT, padding.

        Raises:
            CLIPError: a text is longer than the context.
        """

    @abstractmethod
    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token embeddings (...) -> (..., d), without positions."""

    @abstractmethod
    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e) of prompts, not normalised; gradients reach the embeddings.

        Raises:
            CLIPError: a prompt is longer than the context.
        """

    @abstractmethod
    def encode_text(self, texts: list[str]) -> torch.Tensor:
        """Text features (n, e) of plain texts, not normalised."""
