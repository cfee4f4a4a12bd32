"""Errors that a user can correct: one line, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """The user's input cannot be used; the message says what came, and what is allowed."""

    def __init__(self, message: str):
        # A data loader's worker puts its traceback in front of the message.
        super().__init__(message.rsplit("UserError: ", 1)[-1].strip())


class Interrupted(BaseException):
    """The process was asked to stop (SIGTERM)."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` was probably meant to be, or None."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean X?"`` for the nearest known name, or an empty string."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def unknown_name(kind: str, name: str, known: Iterable[str], meant: str = "") -> UserError:
    """The error for a name that is not among the known ones; it shows the nearest and all.

    Args:
        meant: the known name to show in place of the nearest.
    """
    known = list(known)
    hint = did_you_mean(meant or name, known) or ";"
    return UserError(f"no {kind} named {name!r}{hint} known: {', '.join(known) or 'none'}")
