"""Errors that a user can correct: one line, no traceback."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable, Iterator


class UserError(ValueError):
    """The user's input cannot be used; the message says what came, and what is allowed."""

    def __init__(self, message: str):
        # A data loader's worker puts its traceback in front of the message.
        super().__init__(message.rsplit("UserError: ", 1)[-1].strip())


class DamagedFile(UserError):
    """What a file holds cannot be used."""


# torch's errors of memory and of a GPU are RuntimeErrors, as those of unfitting tensors are
NOT_OF_VALUES = re.compile("out of memory|CUDA|cuDNN|can't allocate")


@contextlib.contextmanager
def naming_damaged(path: str | os.PathLike) -> Iterator[None]:
    """Turn an error of the block, which uses what a file holds, into one that names the file.

    For files that a run writes and nobody edits: a check of every value would be longer than what
    uses them.

    Raises:
        DamagedFile: the block failed, but by no error of the user, of memory, of a GPU or of a
            file.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # of a value of another type or size, nearly anything
        if NOT_OF_VALUES.search(str(error)):
            raise
        first_line = str(error).strip().split("\n")[0]
        raise DamagedFile(f"{path} is damaged ({type(error).__name__}: {first_line})") from error


class Problems:
    """Errors of the user that are collected, so that all of one kind are reported together."""

    SHOWN = 10

    def __init__(self) -> None:
        self.found: list[UserError] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect the UserError that the block raises, if any."""
        try:
            yield
        except UserError as error:
            self.found.append(error)

    def report(self) -> None:
        """Raise what was collected.

        Raises:
            UserError: the only error, or one line for each of the first ten.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise self.found[0]
        more = len(self.found) - self.SHOWN
        lines = [f"- {error}" for error in self.found[: self.SHOWN]]
        lines += [f"- and {more} more"] if more > 0 else []
        raise UserError("\n".join([f"{len(self.found)} problems:", *lines]))


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
