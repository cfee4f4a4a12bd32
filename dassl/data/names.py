"""Comparison of names as tokenizers read them."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable, Hashable, Iterable

QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "_": " "})


def find_equal(names: Iterable[str], key: Callable[[str], Hashable]) -> tuple[str, str] | None:
    """The first two names with the same key, or None."""
    seen: dict[Hashable, str] = {}
    for name in names:
        value = key(name)
        if value in seen:
            return seen[value], name
        seen[value] = name
    return None


def clean_name(name: str) -> str:
    """A name as tokenizers read it, without characters that nobody sees.

    They ignore case, repeated blanks, typographic quotes, HTML entities and Unicode forms;
    underscores are blanks in prompts.
    """
    plain = unicodedata.normalize("NFC", html.unescape(html.unescape(name)))
    if not plain.isascii():  # a zero-width space, say
        plain = "".join(char for char in plain if unicodedata.category(char) != "Cf")
    return " ".join(plain.translate(QUOTES).lower().split())
