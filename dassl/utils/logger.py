"""The log file of a run: everything printed is also written to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from pathlib import Path
from traceback import format_exception
from types import TracebackType
from typing import TextIO

from .errors import UserError


class Tee:
    """A replacement of ``sys.stdout`` that writes to a file and, optionally, to the console.

    Everything else (``isatty``, ``encoding``, ...) is the console's. A console that cannot be
    written any more (a closed terminal, ``| head``, a full disk) is given up; only the file is
    written then. An unexpected error that leaves the context is written to the file, traceback
    included. After :meth:`close` the console alone is written, for code that still refers to this
    object.
    """

    def __init__(self, console: TextIO | None, file: TextIO | None, echo: bool):
        self._console, self._file = console, file
        self._echo = echo and console is not None

    def write(self, text: str) -> int:
        """Write and flush, so that the log is up to date when a run is killed."""
        if self._file is not None:
            self._file.write(text)
            self._file.flush()
        self._to_console("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush the console; the file is always flushed."""
        self._to_console("flush")

    def _to_console(self, method: str, *args: str) -> None:
        if not self._echo:
            return
        try:
            getattr(self._console, method)(*args)
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._echo = False
            redirect_to_null(self._console)
            if self._file is not None:
                self._file.write(
                    f"Output cannot be printed any more ({error}): see this log only\n"
                )
                self._file.flush()

    def __getattr__(self, name: str):
        return getattr(self._console, name)

    def close(self) -> None:
        """Restore ``sys.stdout``; the console itself stays open."""
        if sys.stdout is self:
            sys.stdout = self._console
        self._echo = self._console is not None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Tee:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(Exception):
            self.flush()
        unexpected = isinstance(error, Exception) and not isinstance(error, UserError)
        if self._file is not None and unexpected:  # it may be in a method of the user's own
            with contextlib.suppress(OSError):  # a full disk
                self._file.write("".join(format_exception(error)))
        self.close()


def redirect_to_null(stream: TextIO | None) -> None:
    """Discard what a stream still holds and what is written to it later, without an error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def setup_logger(
    output: str | os.PathLike | None = None, append: bool = False, console: bool = True
) -> Tee:
    """Log what is printed from now on, until the returned context manager is closed.

    Args:
        output: a folder, whose ``log.txt`` is written, or a file ending in .txt or .log; None
            logs to no file.
        append: continue an existing file; otherwise the new one gets the time as a suffix.
        console: also print; False writes to the file only.
    """
    file = None if output is None else _open(Path(output), append)
    sys.stdout = Tee(sys.stdout, file, console)
    return sys.stdout


def _open(output: Path, append: bool) -> TextIO:
    path = output if output.suffix in (".txt", ".log") else output / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if append:
        return path.open("a", encoding="utf-8")
    stamp = time.strftime("-%Y-%m-%d-%H-%M-%S")
    suffixes = itertools.chain(["", stamp], (f"{stamp}-{i}" for i in itertools.count(2)))
    while True:
        with contextlib.suppress(FileExistsError):  # "x": two processes never share a file
            return path.with_name(path.name + next(suffixes)).open("x", encoding="utf-8")
