"""Numbers, sizes and lists in the words of messages."""

from __future__ import annotations

from collections.abc import Iterable


def size_in_words(size: float) -> str:
    """A number of bytes: ``3.2 kB``, ``64.0 MB``, ``1.25 GB``."""
    if size < 999_950:  # what rounds to 1,000 is shown in the next unit
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:.1f} MB" if size < 999_950_000 else f"{size / 1e9:,.2f} GB"


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten_list(names: Iterable[str], limit: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def shorten(text: str, limit: int = 80) -> str:
    """A text cut to ``limit`` characters, the last three of them dots."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
