"""Names and sentences as tokens, and cut to fit a prompt."""

from __future__ import annotations

from collections.abc import Callable

import torch

from clip import TextEncoder
from dassl.utils import UserError


def embed_words(words: str, text: TextEncoder, follow: bool = False) -> torch.Tensor:
    """Token embeddings (m, d), fp32, of words that start a context; underscores become spaces.

    Args:
        follow: whether the words follow others in the prompt.

    Raises:
        UserError: there are no words.
    """
    ids = torch.tensor(encoder_of(text, follow)(words.replace("_", " ")), dtype=torch.long)
    if not len(ids):
        raise UserError(
            f"{words!r} (CTX_INIT) has no words to start a context with; leave it empty for a "
            "random start"
        )
    return text.embed(ids.to(text.device)).detach().float().cpu()


def encoder_of(text: TextEncoder, follow: bool) -> Callable[[str], list[int]]:
    """The function from words to token ids, for words that follow others or begin a prompt."""
    return text.tokenizer.encode_after if follow else text.tokenizer.encode


def cut_texts(texts: list[str], text: TextEncoder, n_ctx: int = 0) -> list[str]:
    """Texts cut at a word where they do not fit a prompt with ``n_ctx`` context tokens.

    The log counts them.
    """
    room = text.context_length - n_ctx - len(text.tokenizer.prefix_ids)
    return cut_all(texts, lambda short: len(_ids_to_end(short, text)) <= room)


def cut_all(texts: list[str], fits: Callable[[str], bool]) -> list[str]:
    """Texts cut at a word until they fit; the log counts those that did not."""
    out = [cut_words(text, fits) for text in texts]
    if count := sum(short != text for short, text in zip(out, texts, strict=True)):
        print(f"{count} of {len(out)} texts were too long for the text tower and are cut")
    return out


def cut_words(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of a text that fits and ends at a word; at least its first word."""
    short = text
    while " " in short and not fits(short):
        short = short.rpartition(" ")[0].rstrip(" ,;:-")
    return short


def _ids_to_end(name: str, text: TextEncoder, follow: bool = False) -> list[int]:
    """Token ids of a name, its full stop and the end token."""
    return [*encoder_of(text, follow)(f"{name}."), *text.tokenizer.suffix_ids]


def tokenize_names(
    names: list[str], text: TextEncoder, n_ctx: int, follow: bool = False
) -> tuple[list[int], list[list[int]]]:
    """The number of tokens of every name, and its ids with full stop and end token.

    Args:
        follow: whether the names follow other words.

    Raises:
        UserError: a prompt is too long; the message contains its name.
    """
    to_end = [_ids_to_end(name, text, follow) for name in names]
    used = [len(text.tokenizer.prefix_ids) + n_ctx + len(ids) for ids in to_end]
    worst = max(range(len(names)), key=used.__getitem__)
    if used[worst] > text.context_length:
        raise UserError(
            f"the prompt of {names[worst]!r} needs {used[worst]} tokens with {n_ctx} context "
            f"tokens, but the text tower takes {text.context_length}; shorten the name or the "
            "context"
        )
    return [len(encoder_of(text, follow)(name)) for name in names], to_end
