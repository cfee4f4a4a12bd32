"""What a text tower knows of its tokenizer: the ids of words, and those that stand around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from dassl.utils.words import shorten

from ._errors import CLIPError, TextError


class Tokenizer(Protocol):
    """Turns a text into the ids of its words; the text is cleaned as the tower's training did.

    A prompt is ``prefix_ids``, the words, ``suffix_ids``, and ``pad_id`` up to its length.

    Attributes:
        prefix_ids: before the words: a start token, [CLS], a language code, or none (SigLIP).
        suffix_ids: after the words: one end token or more.
    """

    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of the words of a text that begins a prompt."""
        ...

    def encode_after(self, text: str) -> list[int]:
        """Ids of the words of a text that follows other words, as after a blank."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        ...


class HubTokenizer:
    """A tokenizer of the Hugging Face hub, with the cleaning of open_clip's ``HFTokenizer``.

    Args:
        source: an ``open_clip.tokenizer.HFTokenizer``.

    Raises:
        CLIPError: it pads on the left, or does not end texts with a token of its own.
    """

    def __init__(self, source):
        self._tokenizer, self._clean = source.tokenizer, source.clean_fn
        self._removed = source.tokenizer.sep_token_id if source.strip_sep_token else None
        if source.tokenizer.padding_side != "right":
            raise CLIPError("tokenizers that pad texts on the left are not supported")
        words, whole = self._ids("a"), self._tokenizer("a").input_ids
        begin = next(i for i in range(len(whole)) if whole[i : i + len(words)] == words)
        self.prefix_ids = tuple(whole[:begin])
        self.suffix_ids = tuple(self._strip(whole[begin + len(words) :]))
        self.pad_id = self._tokenizer.pad_token_id
        if not self.suffix_ids or self.pad_id is None:
            raise CLIPError("tokenizers without an end token or a padding token are not supported")

    def _ids(self, cleaned: str) -> list[int]:
        return self._tokenizer(cleaned, add_special_tokens=False).input_ids

    def _strip(self, ids: list[int]) -> list[int]:
        """Ids as CLIPA has them: with 0 for the separator."""
        return [0 if i == self._removed else i for i in ids]

    def encode(self, text: str) -> list[int]:
        """Ids of the words of a text that begins a prompt."""
        return self._strip(self._ids(self._clean(text)))

    def encode_after(self, text: str) -> list[int]:
        """Ids of the words of a text that follows other words, as after a blank.

        Byte-level and Gemma's tokenizers have other tokens for a word after a blank.
        """
        before, cleaned = self._ids("a"), self._clean(text)
        ids = self._ids(f"a {cleaned}")
        if ids[: len(before)] != before:
            return self.encode(text)
        return self._strip(ids[len(before) :])

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files, as transformers reads them."""
        self._tokenizer.save_pretrained(folder)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self._tokenizer.decode(list(ids))


def tokenize(
    texts: Sequence[str], context_length: int, tokenizer: Tokenizer, truncate: bool = False
) -> torch.Tensor:
    """Token ids (n, context_length), padded after the end token.

    Args:
        truncate: cut texts that are too long, keeping the end token.

    Raises:
        TextError: a text is too long, and ``truncate`` is off.
    """
    ids = torch.full((len(texts), context_length), tokenizer.pad_id, dtype=torch.long)
    room = context_length - len(tokenizer.prefix_ids) - len(tokenizer.suffix_ids)
    for row, text in zip(ids, texts, strict=True):
        words = tokenizer.encode(text)
        if len(words) > room and not truncate:
            raise TextError(
                f"a text of {context_length - room + len(words)} tokens does not fit the context "
                f"of {context_length}: {shorten(text)!r}; shorten it"
            )
        found = [*tokenizer.prefix_ids, *words[:room], *tokenizer.suffix_ids]
        row[: len(found)] = torch.tensor(found, dtype=torch.long)
    return ids
