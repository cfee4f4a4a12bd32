"""CLIP's byte-pair tokenizer under the name that CoOp and its descendants import."""

from __future__ import annotations

import functools

import open_clip.tokenizer
import torch

from . import _tokenizers


class SimpleTokenizer(open_clip.tokenizer.SimpleTokenizer):
    """open_clip's tokenizer, with OpenAI's special tokens in ``encoder`` and ``decoder``.

    ``encode(text)`` gives ids without SOS and EOT, ``decode(ids)`` the text. It is a
    :class:`clip._tokenizers.Tokenizer`, as the tokenizers of other towers are.
    """

    pad_id = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder["<|startoftext|>"] = self.sot_token_id
        self.encoder["<|endoftext|>"] = self.eot_token_id
        self.prefix_ids, self.suffix_ids = (self.sot_token_id,), (self.eot_token_id,)

    def encode_after(self, text: str) -> list[int]:
        """Ids of the words of a text that follows other words: blanks make no difference here."""
        return self.encode(text)


@functools.cache
def shared_tokenizer() -> SimpleTokenizer:
    """The tokenizer of the process, since reading the vocabulary is slow."""
    return SimpleTokenizer()


def tokenize(
    texts: str | list[str], context_length: int = 77, truncate: bool = False
) -> torch.Tensor:
    """Token ids (n, context_length) of CLIP's BPE vocabulary, 0 after EOT.

    Args:
        truncate: cut texts that are too long, keeping EOT.

    Raises:
        CLIPError: a text is too long, and ``truncate`` is off.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    return _tokenizers.tokenize(texts, context_length, shared_tokenizer(), truncate)
