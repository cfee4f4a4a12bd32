"""Names and sentences as the tokens of prompts, and cut to fit them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from clip import TextEncoder
from dassl.utils import UserError


def embed_words(words: str, text: TextEncoder) -> torch.Tensor:
    """Token embeddings (m, d), fp32, of words that start a context; underscores become spaces."""
    ids = torch.tensor(text.tokenizer.encode(words.replace("_", " ")), dtype=torch.long)
    return text.embed(ids.to(text.device)).detach().float().cpu()


def cut_texts(texts: list[str], text: TextEncoder, n_ctx: int = 0) -> list[str]:
    """Texts cut at a word where they do not fit a prompt beside ``n_ctx`` tokens.

    The log counts them.
    """
    room = text.context_length - n_ctx - len(text.tokenizer.prefix_ids)
    return cut_all(texts, lambda short: len(_ids_to_end(short, text)) <= room)


def cut_all(texts: list[str], fits: Callable[[str], bool]) -> list[str]:
    """Texts cut at a word until they fit; the log counts those that did not."""
    out = [cut_words(whole, fits) for whole in texts]
    if count := sum(short != whole for short, whole in zip(out, texts, strict=True)):
        print(f"{count} of {len(out)} texts were too long for the text tower and are cut")
    return out


def cut_words(whole: str, fits: Callable[[str], bool]) -> str:
    """A text without as many of its last words as it takes to fit, but for the first."""
    short = whole
    while " " in short and not fits(short):
        short = short.rpartition(" ")[0].rstrip(" ,;:-")
    return short


def _ids_to_end(name: str, text: TextEncoder, follow: bool = False) -> list[int]:
    """Token ids of a name, its full stop and the end token."""
    encode = text.tokenizer.encode_after if follow else text.tokenizer.encode
    return [*encode(f"{name}."), *text.tokenizer.suffix_ids]


def tokenize_names(
    names: list[str], text: TextEncoder, n_ctx: int, follow: bool = False
) -> tuple[list[int], list[list[int]]]:
    """The number of tokens of every name, and its ids with full stop and end token.

    Args:
        follow: whether the names follow other words.

    Raises:
        UserError: a prompt is too long; its name is in the message.
    """
    whole = [_ids_to_end(name, text, follow) for name in names]
    used = [len(text.tokenizer.prefix_ids) + n_ctx + len(ids) for ids in whole]
    worst = max(range(len(names)), key=used.__getitem__)
    if used[worst] > text.context_length:
        raise UserError(
            f"the prompt of {names[worst]!r} needs {used[worst]} tokens with {n_ctx} context "
            f"tokens, but the text tower takes {text.context_length}; shorten the name or the "
            "context"
        )
    encode = text.tokenizer.encode_after if follow else text.tokenizer.encode
    return [len(encode(name)) for name in names], whole
