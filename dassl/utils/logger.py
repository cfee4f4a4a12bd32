"""The log file of a run: everything printed is also written to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO


class Tee:
    """Stands in for ``sys.stdout``: writes to a file and, if wanted, on to the console.

    Everything else (``isatty``, ``encoding``, ...) is the console's. After :meth:`close` it only
    passes on, so that whoever kept a reference to it may still write.
    """

    def __init__(self, console: TextIO, file: TextIO | None, echo: bool):
        self._console, self._file, self._echo = console, file, echo

    def write(self, text: str) -> int:
        """Write and flush, so that the log is up to date when a run is killed."""
        if self._file is not None:
            self._file.write(text)
            self._file.flush()
        if self._echo:
            self._console.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the console; the file is always flushed."""
        if self._echo:
            self._console.flush()

    def __getattr__(self, name: str):
        return getattr(self._console, name)

    def close(self) -> None:
        """Give ``sys.stdout`` back; the console itself stays open."""
        if sys.stdout is self:
            sys.stdout = self._console
        self._echo = True
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
        self.close()


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
