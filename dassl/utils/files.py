"""Files and folders: atomic writes, JSON, listings, the user's cache folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import UserError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
MAX_JSON = 2**30  # bytes; a split of a million images has about a tenth of that


def cache_folder(*parts: str) -> Path:
    """A folder in the user's cache (``~/.cache/softcpt`` on Linux, or below XDG_CACHE_HOME)."""
    from platformdirs import user_cache_path

    return user_cache_path("softcpt").joinpath(*parts)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces ``path`` when the block succeeds.

    A reader sees the old file or the new one, never a part of it, even after a kill or a power
    cut. The temporary name is unique to the writer, hidden, and has the suffix of ``path``.

    Raises:
        FileNotFoundError: nothing was written to the temporary path.
        OSError: no space, no permission, ...; the message names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # some file systems do not sync folders
            _sync(path.parent, os.O_RDONLY)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming_full_disk(folder: str | os.PathLike) -> Iterator[None]:
    """Errors of a full disk, which name no file, name the folder that was written to."""
    try:
        yield
    except OSError as error:
        plain = error.filename is None and error.strerror == os.strerror(error.errno or 0)
        if error.errno in FULL_DISK and plain:
            raise OSError(error.errno, f"{error.strerror}, writing to {folder}") from error
        raise


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(obj: Any, path: str | os.PathLike) -> None:
    """Write JSON atomically; NaN and infinity are not JSON and raise ValueError."""
    text = json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike, **options: Any) -> Any:
    """The content of a JSON file; a missing or broken one is a UserError that names it.

    Args:
        options: of ``json.loads``.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > MAX_JSON:
            raise UserError(f"cannot read {path}: it has {size:,} bytes, more than {MAX_JSON:,}")
        return json.loads(path.read_text(encoding="utf-8"), **options)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise UserError(f"{path} is not valid JSON: {error}") from None


def mkdir_if_missing(dirname: str | os.PathLike) -> None:
    """Make a folder and its parents."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def check_isfile(fpath: str | os.PathLike) -> bool:
    """Whether a file exists; if not, a line is printed."""
    found = Path(fpath).is_file()
    if not found:
        print(f"There is no file {fpath}")
    return found


def listdir_nohidden(path: str | os.PathLike, sort: bool = True) -> list[str]:
    """Names in a folder without those that start with a dot; a missing folder is a UserError."""
    names = [name for name in list_folder(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def list_folder(path: str | os.PathLike) -> list[str]:
    """All names in a folder; one that is missing or cannot be read is a UserError."""
    try:
        return os.listdir(path)
    except OSError as error:
        raise UserError(f"cannot list the folder {path}: {error.strerror}") from None


def neighbours(path: Path, pattern: str = "*") -> str:
    """The files beside a missing one, as the end of a message: ``"; DIR holds a.pt, b.pt"``."""
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    names = sorted(p.name for p in path.parent.glob(pattern) if not p.name.startswith("."))
    return f"; {path.parent} holds {', '.join(names) or 'no such file'}"
