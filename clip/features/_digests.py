"""Content digests of images, recomputed only if a file may have changed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dassl.utils.hashes import hash_file

FILE = "digests.sqlite"
CHUNK = 500  # paths per database query
# A file written twice within the resolution of its time stamps looks unchanged. Some file systems
# store whole seconds, FAT every second one.
SETTLED_NS = 2_500_000_000
TABLE = (
    "CREATE TABLE IF NOT EXISTS digests "
    "(path TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, inode INT, digest TEXT)"
)
Stat = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode


class DigestCache:
    """Digests of files by (path, size, mtime_ns, ctime_ns, inode), shared by processes.

    A file changed a moment ago is read every time. Paths are stored relative to the cache's folder.
    Without a usable database, digests last as long as the process.

    Args:
        root: the folder of the feature stores.
        read: digest (hex) of the content of a file.
    """

    def __init__(self, root: str | Path, read: Callable[[str], str] = hash_file):
        self.root, self.read = Path(root), read
        self._known: dict[str, tuple[Stat, str]] = {}
        self._looked_up: set[str] = set()
        self._folders: dict[str, str] = {}  # relative to the root

    def of(self, paths: Sequence[str]) -> list[str]:
        """The digest of each file.

        Raises:
            the error of ``read`` for an unreadable file.
        """
        self._look_up([path for path in dict.fromkeys(paths) if path not in self._looked_up])
        fresh: dict[str, tuple[Stat, str]] = {}
        digests = {path: self._one(path, fresh) for path in dict.fromkeys(paths)}
        if fresh:
            self._known |= fresh
            self._save(fresh)
        return [digests[path] for path in paths]

    def _one(self, path: str, fresh: dict) -> str:
        try:
            stat = _stat(path)
        except OSError:
            return self.read(path)  # fails, with the reader's message for a missing image
        known = self._known.get(path)
        if known and known[0] == stat:
            return known[1]
        digest = self.read(path)
        if time.time_ns() - max(stat[1], stat[2]) > SETTLED_NS:
            fresh[path] = stat, digest
        return digest

    def verify(self) -> tuple[int, list[str]]:
        """Read every known file again; the number of files, and a line per wrong digest.

        Wrong entries, and those of missing files, are deleted.
        """
        rows: list[tuple] = []
        with self._database() as base:
            rows = base.execute("SELECT * FROM digests").fetchall() if base else []
        wrong, stale = [], []
        for name, *stat, digest in rows:
            path = self.root / name
            try:
                if _stat(path) != tuple(stat):
                    stale.append(name)  # it would have been read again
                elif hash_file(path) != digest:
                    wrong.append(name)
            except OSError:
                stale.append(name)
        with self._database() as base:
            if base:
                drop = [(name,) for name in [*stale, *wrong]]
                base.executemany("DELETE FROM digests WHERE path = ?", drop)
        lines = [f"{os.path.normpath(self.root / name)}: its digest was wrong" for name in wrong]
        return len(rows) - len(stale), lines

    def _look_up(self, paths: Sequence[str]) -> None:
        """Read the database's entries for the paths."""
        if not paths:
            return
        self._looked_up |= set(paths)
        names = {name: path for path in paths if (name := self._name(path))}
        with self._database() as base:
            if not base:
                return
            every = list(names)
            for start in range(0, len(every), CHUNK):
                some = every[start : start + CHUNK]
                marks = ",".join("?" * len(some))
                for name, *stat, digest in base.execute(
                    f"SELECT * FROM digests WHERE path IN ({marks})", some
                ):
                    self._known[names[name]] = tuple(stat), digest

    def _save(self, fresh: dict[str, tuple[Stat, str]]) -> None:
        rows = [(self._name(path), *stat, digest) for path, (stat, digest) in fresh.items()]
        with self._database(make=True) as base:
            if base:
                base.executemany(
                    "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)",
                    [row for row in rows if row[0]],
                )

    def _name(self, path: str) -> str:
        """The path relative to the root; "" if it has none, or is no text, and is not stored."""
        folder, name = os.path.split(path)
        if folder not in self._folders:  # the images of a folder share this slow step
            try:
                relative = os.path.relpath(folder or ".", self.root)
            except ValueError:  # another drive
                relative = ""
            self._folders[folder] = relative
        relative = self._folders[folder]
        found = relative and os.path.normpath(os.path.join(relative, name))
        try:
            found.encode()
        except UnicodeEncodeError:
            return ""
        return found

    @contextlib.contextmanager
    def _database(self, make: bool = False) -> Iterator[sqlite3.Connection | None]:
        """The database, committed at the end; None if it is missing or unusable."""
        file, base = self.root / FILE, None
        if not make and not file.exists():
            yield None
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(file, timeout=30)
            base.execute(TABLE)
        except (sqlite3.Error, OSError) as error:
            if base:
                base.close()
            base = None
            _ignore(file, error)
        try:
            yield base
            if base:
                base.commit()
        except sqlite3.Error as error:
            _ignore(file, error)
        finally:
            if base:
                base.close()


def _ignore(file: Path, error: Exception) -> None:
    """Say that a database is not used, and delete a damaged one, so that a new one is made."""
    print(f"ignoring the digests in {file} ({error})")
    if any(words in str(error) for words in ("not a database", "malformed")):
        file.unlink(missing_ok=True)


def _stat(path: str | Path) -> Stat:
    found = os.stat(path)
    inode = found.st_ino & (2**63 - 1)  # some file systems use 64 bits, SQLite stores 63
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, inode
