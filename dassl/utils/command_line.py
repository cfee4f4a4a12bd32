"""The base of every program: flags, one-line errors, exit codes, and output that may be cut off."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence

from .errors import Interrupted, UserError, unknown_name
from .logger import redirect_to_null, setup_logger

# The first words of all keys of a configuration, here since --help does without dassl.config
SINGLE_KEYS = ("OUTPUT_DIR", "RESUME", "SEED", "USE_CUDA", "VERBOSE", "LOGGERS", "PROTOCOL")
SECTIONS = (
    *("INPUT", "DATASET", "DATALOADER", "MODEL", "OPTIM", "TRAIN", "TEST", "TRAINER", "COMPUTE"),
    "FEATURES",
)
CONFIG_KEY = re.compile(rf"{'|'.join(SINGLE_KEYS)}|({'|'.join(SECTIONS)})(\.[A-Z][A-Z0-9_]*)+")
DONE, FAILED, WRONG_COMMAND, INTERRUPTED = 0, 1, 2, 130  # exit codes


def path(text: str) -> str:
    """Type of a path argument: ``~`` is the user's home folder."""
    return os.path.expanduser(text)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError, has ``--debug``, and keeps the help's lines."""

    def __init__(self, *args, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def add_overrides(self, description: str) -> None:
        """Take ``KEY VALUE`` pairs as ``opts``; call it after the other arguments are added."""
        self.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE", help=description)

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        """The arguments; ``None`` reads ``sys.argv``.

        Raises:
            UserError: an unknown flag, a missing argument, or a value that a flag does not take.
        """
        found, rest = self.parse_known_args(args, namespace)
        unknown = next((word for word in rest if word.startswith("--")), None)
        if unknown:
            raise unknown_name("flag", unknown.split("=")[0], self._flags())
        if rest and not hasattr(found, "opts"):
            self.error(f"unexpected argument {rest[0]!r}")
        if rest:
            found.opts = [*found.opts, *rest]  # values such as -1 look like flags to argparse
        self._free_overrides(found)
        return found

    def _free_overrides(self, found: argparse.Namespace) -> None:
        """Move the KEY VALUE pairs that follow the values of a flag with several to ``opts``."""
        for action in self._actions:
            words = getattr(found, action.dest, None)
            if action.nargs != "+" or not isinstance(words, list) or not hasattr(found, "opts"):
                continue
            first = next((i for i, word in enumerate(words) if CONFIG_KEY.fullmatch(word)), None)
            if first is not None:
                setattr(found, action.dest, words[:first])
                found.opts = [*words[first:], *found.opts]

    def _flags(self) -> list[str]:
        """The flags of this parser and of its sub-commands."""
        flags = dict.fromkeys(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                flags |= dict.fromkeys(f for p in action.choices.values() for f in p._flags())
        return list(flags)

    def format_help(self) -> str:
        """The help; started as ``softcpt train``, its commands begin with that."""
        text, started = super().format_help(), sys.argv[0]
        if not started.startswith("softcpt "):
            return text
        words = self.prog.split()  # those of a sub-command follow
        program = " ".join(words[:3] if words[0] == "python" else words[:1])
        return re.sub(rf"(python )?{re.escape(program)}\b", started, text)

    def error(self, message: str):
        """Raise argparse's message as a UserError."""
        raise UserError(f"{message}; --help shows the flags")


def collect_rarely() -> None:
    """Run Python's garbage collector rarely: otherwise it takes a seventh of the imports' time."""
    gc.set_threshold(50_000)


def run_program(
    main: Callable[[], int | None],
    argv: Sequence[str] | None = None,
    interrupted: str = "interrupted",
    outlives_terminal: bool = False,
    writes_files: bool = False,
) -> int:
    """Call a program's main function; the exit code.

    An error of the user is printed in one line (exit code 2), any other error by its name
    (1); with ``--debug`` their tracebacks as well. A reader that has seen enough (``| head``)
    ends the program quietly.

    Args:
        argv: the arguments; ``None`` is ``sys.argv``.
        interrupted: what to print when the user or the system stops the program.
        outlives_terminal: work on without output when the reader or the terminal goes away.
        writes_files: where it reads and writes is the user's choice, so an OSError is an error of
            the user too.
    """
    if argv is None:
        _use_utf8()
        collect_rarely()
    _open_standard_streams()
    with _outliving_terminal() if outlives_terminal else contextlib.nullcontext():
        try:
            code = main() or DONE
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            redirect_to_null(sys.stdout)
            return DONE
        except SystemExit:  # --help
            _flush_or_discard()
            raise
        except (KeyboardInterrupt, Interrupted):
            _print_error(interrupted)
            return INTERRUPTED
        except Exception as error:
            if "--debug" in (sys.argv if argv is None else argv):
                with contextlib.suppress(OSError, ValueError):
                    traceback.print_exc()
            return _report(error, (UserError, OSError) if writes_files else UserError)


def _report(error: Exception, of_user: type | tuple[type, ...]) -> int:
    """Print an error; the exit code.

    Args:
        of_user: the errors that the user can correct.
    """
    if isinstance(error, of_user):
        _print_error(f"error: {error}")
        return WRONG_COMMAND
    _print_error(f"error: {type(error).__name__}: {error} (--debug shows where)")
    _flush_or_discard()
    return FAILED


def _flush_or_discard() -> None:
    """Write what was printed so far, or nothing if stdout has no reader or no space."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        redirect_to_null(sys.stdout)


def _print_error(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # there may be no terminal
        print(message, file=sys.stderr, flush=True)


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale would garble the names of files."""
    if sys.getfilesystemencoding().lower() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding


def _open_standard_streams() -> None:
    """Open what the caller closed (``>&-``): the next file would take the number of stdout."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open until the end
            setattr(sys, name, null)


@contextlib.contextmanager
def _outliving_terminal() -> Iterator[None]:
    """Ignore SIGHUP, and lose output rather than fail when nobody reads it."""
    with setup_logger():
        if threading.current_thread() is not threading.main_thread():  # only it sets handlers
            yield
            return
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # its terminal was closed
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)
