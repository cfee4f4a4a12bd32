"""CLIP's byte-pair tokenizer under the name that CoOp and its descendants import."""

from __future__ import annotations

import functools

import open_clip.tokenizer
import torch

from ._errors import CLIPError


class SimpleTokenizer(open_clip.tokenizer.SimpleTokenizer):
    """open_clip's tokenizer, with OpenAI's special tokens in ``encoder`` and ``decoder``.

    ``encode(text)`` gives ids without SOS and EOT, ``decode(ids)`` the text.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder["<|startoftext|>"] = self.sot_token_id
        self.encoder["<|endoftext|>"] = self.eot_token_id


@functools.cache
def shared_tokenizer() -> SimpleTokenizer:
    """The tokenizer of the process, since reading the vocabulary is slow."""
    return SimpleTokenizer()


def tokenize(
    texts: str | list[str],
    context_length: int = 77,
    truncate: bool = False,
    tokenizer: SimpleTokenizer | None = None,
) -> torch.Tensor:
    """Token ids (n, context_length) of CLIP's BPE vocabulary, 0 after EOT.

    Args:
        truncate: cut texts that are too long, keeping EOT.

    Raises:
        CLIPError: a text is too long, and ``truncate`` is off.
    """
    tokenizer = tokenizer or shared_tokenizer()
    texts = [texts] if isinstance(texts, str) else list(texts)
    ids = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        found = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        if len(found) > context_length:
            if not truncate:
                raise CLIPError(
                    f"a text of {len(found)} tokens does not fit the context of {context_length}: "
                    f"{text!r}; shorten it"
                )
            found = [*found[: context_length - 1], tokenizer.eot_token_id]
        row[: len(found)] = torch.tensor(found)
    return ids
