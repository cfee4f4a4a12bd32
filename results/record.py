"""Writes ``results.json``: what a run computes, its status and its results."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from filelock import BaseFileLock, FileLock, Timeout

from dassl.config import CfgNode
from dassl.utils import Interrupted, UserError, atomic_path, read_json, write_json
from dassl.utils.files import FULL_DISK
from dassl.utils.lockstep import now
from dassl.utils.peak_memory import PeakMemory

from .leftovers import nothing_computed, remove_run_files
from .schema import FILE, NEWER, NOT_HASHED, SCHEMA, RecordReader
from .settings import CONFIG, differences, read_config
from .tasks_file import write_tasks

if TYPE_CHECKING:
    from dassl.data import TaskSpace
    from dassl.data.identity import DataIdentity


class Busy(UserError):
    """Another process holds the lock of the run directory."""


class OtherRun(UserError):
    """The run directory holds a run of another configuration, of other data or weights."""


class RunRecord:
    """The record of one run directory, locked while it is in use.

    Args:
        directory: the run directory, created if it does not exist.
        cfg: the merged configuration.
        loads: the checkpoints that an evaluation-only run loads, or that a training starts from,
            by a hash of their content; "" for neither.
    """

    def __init__(self, directory: str | Path, cfg: CfgNode, loads: str = ""):
        self.folder = Path(directory)
        self._config = hashed_config(cfg)
        self.earlier: dict | None = None
        self.content = {
            "schema": SCHEMA,
            "status": "running",
            "protocol": {},
            "tasks": [],
            "suite": {},
            "trainable": {},
            "hashes": {"config": config_hash(cfg, loads)},
            "data": {},
            "run": {"resumed": False},
        }

    @contextlib.contextmanager
    def locked(self) -> Iterator[RunRecord]:
        """Lock the run directory and read its earlier record.

        A UserError raised inside before anything was computed leaves no run behind.

        Raises:
            Busy: another process holds the lock.
            UserError: the folder cannot be written, or holds a run with another configuration.
        """
        new_folders = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        lock = self._lock()
        known = {path.name for path in self.folder.iterdir()}
        try:
            self.earlier = self._read_earlier()
            yield self
        except UserError:
            if FILE not in known and nothing_computed(self.folder):
                remove_run_files(self.folder, known, new_folders)
            raise
        finally:
            lock.release()

    def _lock(self) -> BaseFileLock:
        """The lock of the run directory, which is created."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
            return lock
        except Timeout:
            raise Busy(
                f"another process is working in {self.folder}; wait for it, or choose another "
                "--output-dir"
            ) from None
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}") from None

    def _read_earlier(self) -> dict | None:
        if not self.exists:
            return None
        try:
            reader = RecordReader(self.folder / FILE, read_json(self.folder / FILE))
            reader.get("hashes.config", str)
        except UserError as error:
            raise UserError(
                f"{error}; choose another --output-dir, or move the file away"
            ) from None
        earlier = reader.content
        if earlier["hashes"]["config"] != self.content["hashes"]["config"]:
            if self._is_mistake(earlier):
                return None  # it failed before anything was computed, as by a mistyped command
            raise OtherRun(
                f"{self.folder} holds a run with another configuration "
                f"({earlier['status']}){self._difference()}; choose another --output-dir, or "
                "delete the folder"
            )
        return earlier

    def _is_mistake(self, earlier: dict) -> bool:
        """Whether the earlier run failed before anything was computed that could be resumed."""
        return earlier["status"] == "failed" and nothing_computed(self.folder)

    def check_inputs(self, data: DataIdentity, weights_file: str) -> None:
        """Refuse the earlier run if it was computed on other data or from another weight file.

        The place of the data does not count. A record of schema 1, or of a run that stopped
        before its data were recorded, holds nothing to compare.

        Args:
            data: the identity of the data as they are now.
            weights_file: the hash of the weight file as it is now; "" for published weights.

        Raises:
            UserError: the message names the first difference.
        """
        from dassl.data.identity import first_difference

        hashes = self.earlier["hashes"]
        if hashes.get("data", data.draw) != data.draw:
            found = first_difference(self.earlier.get("data", {}), data.summary())
            problem = f"on other data ({self.earlier['status']}): {found}"
        elif hashes.get("weights_file", weights_file) != weights_file:
            problem = (
                f"from other weights ({self.earlier['status']}): the file of the backbone has "
                "changed since"
            )
        else:
            return
        if self._is_mistake(self.earlier):
            self.earlier = None
            return
        raise OtherRun(
            f"{self.folder} holds a run {problem}; choose another --output-dir, or delete the "
            "folder"
        )

    def _difference(self) -> str:
        """How the earlier run's configuration differs, for an error."""
        if not (self.folder / CONFIG).exists():
            return ""
        words = differences(read_config(self.folder), self._config)
        return f": {words or 'they load other checkpoints, or only one of them loads any'}"

    @property
    def exists(self) -> bool:
        """Whether the folder holds a record of any configuration."""
        return (self.folder / FILE).exists()

    @property
    def complete(self) -> bool:
        """Whether the folder holds a complete run of this configuration."""
        return self.earlier is not None and self.earlier["status"] == "complete"

    def begin(self, seed: int) -> None:
        """Record that the run has started, and write its ``config.yaml``."""
        self.content["protocol"]["seed"] = seed
        self.content["run"]["resumed"] = self.earlier is not None
        for key in ("hashes", "data"):  # stay known if this launch stops before it finds them
            self.content[key] = {**(self.earlier or {}).get(key, {}), **self.content[key]}
        self._started = now()
        self.peak = PeakMemory()
        with atomic_path(self.folder / CONFIG) as path:
            text = yaml.safe_dump(self._config, sort_keys=False)
            path.write_text(text, encoding="utf-8")
        self.save()

    def describe(self, space: TaskSpace, **sections: dict | list) -> None:
        """Record what the run computes, and write its ``tasks.json``."""
        write_tasks(space, self.folder)
        self.update(**sections)

    def update(self, **sections: dict | list) -> None:
        """Merge sections (``protocol=...``, ``run=...``) into the record and save it."""
        for key, section in sections.items():
            if isinstance(section, dict):
                self.content[key] = {**self.content.get(key, {}), **section}
            else:
                self.content[key] = section
        self.save()

    def finish(self, status: str, **sections: dict | list) -> dict:
        """Record the final status (complete, interrupted or failed); returns the record."""
        self.content["status"] = status
        self.content["run"]["seconds"] = round(now() - self._started, 3)
        self.update(**sections)
        return self.content

    def save(self) -> None:
        """Write ``results.json`` atomically."""
        write_json(self.content, self.folder / FILE)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record an interruption or a failure of the block inside, and raise it again."""
        with sigterm_raises():
            try:
                yield
            except (KeyboardInterrupt, Interrupted, SystemExit):
                self.finish("interrupted")
                raise
            except BaseException as error:
                with contextlib.suppress(OSError):  # a full disk; the status stays "running"
                    if isinstance(error, OSError) and error.errno in FULL_DISK:
                        self.finish("interrupted")  # with more space it can resume
                    else:
                        self.finish("failed", run={"error": f"{type(error).__name__}: {error}"})
                raise


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise Interrupted in the main thread at SIGTERM, unless a handler is set already."""
    main = threading.current_thread() is threading.main_thread()  # only it may set handlers
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # a launcher such as Slurm's has a handler of its own
        return

    def stop(signum, frame):
        # The same signal ends the loader's workers; torch would raise an error for each.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise Interrupted

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_locked(folder: str | Path) -> bool:
    """Whether a process holds the lock of a run directory."""
    path = Path(folder) / ".lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def hashed_config(cfg: CfgNode) -> dict:
    """The configuration without the keys of NOT_HASHED, and without those of NEWER by default."""
    content = cfg.to_dict()
    for key in (*NOT_HASHED, *NEWER):
        *parents, last = key.split(".")
        node = content
        for parent in parents:
            node = node.get(parent, {})
        if last in node and node[last] == NEWER.get(key, node[last]):
            del node[last]
    return content


def config_hash(cfg: CfgNode, loads: str = "") -> str:
    """Hex digest of the settings that decide what a run computes."""
    text = json.dumps([hashed_config(cfg), loads], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
