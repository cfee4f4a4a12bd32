"""Administration of the folder of stores: sizes, checks, removal of the least recently used."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dassl.utils.hashes import hash_file

from ._paths import KEY_FILE, SUFFIX, USED_FILE

HALF_WRITTEN_SECONDS = 3600  # an older temporary file belongs to a killed process


@dataclass(frozen=True)
class Part:
    """The features of one key and one view."""

    folder: Path
    label: str
    key: dict
    size: int  # bytes
    used: float  # when last; seconds since the epoch

    @property
    def shards(self) -> list[Path]:
        """The feature files."""
        try:
            return sorted(self.folder.glob(f"[!.]*{SUFFIX}"))
        except FileNotFoundError:  # deleted just now
            return []

    def images(self) -> int:
        """Number of features in readable files."""
        return sum(_count(path) for path in self.shards)


def parts(root: Path) -> list[Part]:
    """All parts in a folder of stores, the least recently used first."""
    found = []
    for described in (folder / KEY_FILE for folder in _folders(root)):
        if not described.is_file():
            continue
        about = _described(described)
        for folder in _folders(described.parent):
            try:
                files = [path.stat() for path in folder.iterdir()]
                used = (folder / USED_FILE).stat().st_mtime
            except OSError:  # written or removed at this moment
                continue
            size = sum(stat.st_size for stat in files)
            found.append(Part(folder, about.get("label", ""), about.get("key", {}), size, used))
    return sorted(found, key=lambda part: part.used)


def make_room(root: Path, needed: int, limit: int, keep: Iterable[Path] = ()) -> list[Part]:
    """Remove the least recently used parts until ``needed`` more bytes fit into ``limit``.

    Args:
        keep: folders of parts that must stay.

    Returns:
        The removed parts.
    """
    kept, removed = set(keep), []
    every = parts(root)
    total = sum(part.size for part in every)
    for part in every:
        if total + needed <= limit:
            break
        if part.folder not in kept:
            remove(part)
            total -= part.size
            removed.append(part)
    return removed


def remove(part: Part) -> None:
    """Delete a part; processes that have mapped its files can still read them."""
    shutil.rmtree(part.folder, ignore_errors=True)
    if not _folders(part.folder.parent):
        shutil.rmtree(part.folder.parent, ignore_errors=True)


def clear(root: Path, older_than: float | None = None) -> list[Part]:
    """Delete all parts, or those last used before a time in seconds since the epoch."""
    removed = [part for part in parts(root) if older_than is None or part.used < older_than]
    for part in removed:
        remove(part)
    return removed


def verify_shards(root: Path) -> tuple[int, list[str]]:
    """Read every file again and delete damaged ones; the number of files, and a line per damage.

    Temporary files of killed processes are deleted too.
    """
    count, broken = 0, []
    for part in parts(root):
        with contextlib.suppress(FileNotFoundError):  # renamed or deleted just now
            for path in part.folder.glob(".*.*"):
                if path.stat().st_mtime < time.time() - HALF_WRITTEN_SECONDS:
                    path.unlink()
        for path in part.shards:
            count += 1
            try:
                digest = hash_file(path)
            except FileNotFoundError:  # deleted by another process just now
                continue
            except OSError as error:
                broken.append(f"{path}: {error.strerror}")
                continue
            if not digest.startswith(path.stem):
                broken.append(f"{path}: damaged; deleted, its features will be computed again")
                path.unlink(missing_ok=True)
    return count, broken


def _folders(folder: Path) -> list[Path]:
    """The sorted folders in a folder, which another process may have deleted."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _count(path: Path) -> int:
    try:
        with safe_open(path, framework="np") as file:  # "pt" imports torch
            return file.get_slice("features").get_shape()[0]
    except (SafetensorError, OSError):
        return 0


def _described(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    return found if isinstance(found, dict) else {}
