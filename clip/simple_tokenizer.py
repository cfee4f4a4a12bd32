"""CLIP's byte-pair tokenizer under the name that CoOp and its descendants import."""

from __future__ import annotations

import functools

import open_clip.tokenizer


class SimpleTokenizer(open_clip.tokenizer.SimpleTokenizer):
    """open_clip's tokenizer; ``encoder`` and ``decoder`` also know OpenAI's special names.

    ``encode(text)`` gives ids without SOS and EOT, ``decode(ids)`` the text.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder["<|startoftext|>"] = self.sot_token_id
        self.encoder["<|endoftext|>"] = self.eot_token_id


@functools.cache
def shared_tokenizer() -> SimpleTokenizer:
    """One tokenizer per process: reading the vocabulary takes a moment."""
    return SimpleTokenizer()
