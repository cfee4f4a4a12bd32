"""``results.json``: what a run was, how far it came, and what it found."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from dassl.config import CfgNode
from dassl.utils import Interrupted, UserError, atomic_path, flat, read_json, write_json

SCHEMA = 1
FILE = "results.json"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# Keys that say where and how a run is done, not what is computed.
PLACE_KEYS = (
    "OUTPUT_DIR",
    "RESUME",
    "USE_CUDA",
    "VERBOSE",
    "COMPUTE.CHANNELS_LAST",
    "COMPUTE.COMPILE",
    "COMPUTE.GRAPHS",
    "COMPUTE.TF32",
    "DATASET.ROOT",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.OLD_DATA_PATH",
    "DATALOADER.NEW_DATA_PATH",
    "FEATURES.DIR",
    "FEATURES.LIMIT_GB",
    "FEATURES.MODE",
    "TRAIN.PRINT_FREQ",
    "TRAIN.CHECKPOINT_FREQ",
)


class Busy(UserError):
    """Another process is working in the run directory."""


class RunRecord:
    """The record of one run directory, locked while it is used.

    Args:
        directory: the run directory; made if need be.
        cfg: the merged configuration.
        evaluates: what an evaluation-only run evaluates; "" for a training.
    """

    def __init__(self, directory: str | Path, cfg: CfgNode, evaluates: str = ""):
        self.folder = Path(directory)
        self.evaluates = evaluates
        self._config = content_of(cfg)
        self.earlier: dict | None = None
        self.content = {
            "schema": SCHEMA,
            "status": "running",
            "protocol": {},
            "tasks": [],
            "suite": {},
            "trainable": {},
            "hashes": {"config": config_hash(cfg, evaluates)},
            "run": {"resumed": False},
        }

    @contextlib.contextmanager
    def locked(self) -> Iterator[RunRecord]:
        """Hold the run directory: another process that wants it is refused."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise Busy(
                f"another process is working in {self.folder}; wait for it, or choose another "
                "--output-dir"
            ) from None
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}") from None
        try:
            self.earlier = self._read_earlier()
            yield self
        finally:
            lock.release()

    def _read_earlier(self) -> dict | None:
        if not self.exists:
            return None
        earlier = read_json(self.folder / FILE)
        if not _is_record(earlier):
            raise UserError(
                f"{self.folder / FILE} is not a results file of schema {SCHEMA}; choose another "
                "--output-dir, or move the file away"
            )
        if earlier["hashes"]["config"] != self.content["hashes"]["config"]:
            if earlier["status"] == "failed" and not any(self.folder.rglob("resume*.pt")):
                return None  # a mistake in the command, found before anything was computed
            raise UserError(
                f"{self.folder} holds a run with another configuration "
                f"({earlier['status']}){self._difference()}; choose another --output-dir, or "
                "delete the folder"
            )
        return earlier

    def _difference(self) -> str:
        """The first keys in which the earlier run's configuration differs, for the message."""
        path = self.folder / "config.yaml"
        if not path.exists():
            return ""
        old = flat(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        new = flat(self._config)
        keys = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
        shown = [f"{k} was {old.get(k)!r}, now {new.get(k)!r}" for k in keys[:3]]
        if not shown:
            return ": one trains and the other evaluates, or they evaluate other checkpoints"
        return f": {'; '.join(shown)}"

    @property
    def exists(self) -> bool:
        """Whether the folder holds a record, of this configuration or a failed one of another."""
        return (self.folder / FILE).exists()

    @property
    def complete(self) -> bool:
        """Whether an earlier run of the same configuration has finished."""
        return self.earlier is not None and self.earlier["status"] == "complete"

    def begin(self, seed: int) -> None:
        """Write down that the run is under way, with which configuration and seed."""
        self.content["protocol"]["seed"] = seed
        self.content["run"]["resumed"] = self.earlier is not None
        self._started = time.time()
        with atomic_path(self.folder / "config.yaml") as path:
            text = yaml.safe_dump(self._config, sort_keys=False)
            path.write_text(text, encoding="utf-8")
        self.save()

    def update(self, **parts: dict) -> None:
        """Merge parts (``protocol=...``, ``run=...``) into the record and save it."""
        for key, part in parts.items():
            if isinstance(part, dict):
                self.content[key] = {**self.content.get(key, {}), **part}
            else:
                self.content[key] = part
        self.save()

    def finish(self, status: str, **parts: dict) -> dict:
        """Write the last word: complete, interrupted or failed."""
        self.content["status"] = status
        self.content["run"]["seconds"] = round(time.time() - self._started, 3)
        self.update(**parts)
        return self.content

    def save(self) -> None:
        """Write the file as a whole."""
        write_json(self.content, self.folder / FILE)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record an interruption or a failure of what runs inside, and pass it on."""
        with _sigterm_raises():
            try:
                yield
            except (KeyboardInterrupt, Interrupted, SystemExit):
                self.finish("interrupted")
                raise
            except BaseException as error:
                with contextlib.suppress(OSError):  # on a full disk; it stays "running" then
                    if isinstance(error, OSError) and error.errno in FULL_DISK:
                        self.finish("interrupted")  # there is nothing wrong with the run
                    else:
                        self.finish("failed", run={"error": f"{type(error).__name__}: {error}"})
                raise


def _is_record(content) -> bool:
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return False
    hashes = content.get("hashes")
    return isinstance(hashes, dict) and "config" in hashes and "status" in content


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()  # only it may set handlers
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # another handler, such as a cluster's, knows what its signal means
        return

    def stop(signum, frame):
        # A loader's workers that the same signal ends would raise errors of their own.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise Interrupted

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_locked(folder: str | Path) -> bool:
    """Whether a process is working in a run directory now."""
    path = Path(folder) / ".lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def content_of(cfg: CfgNode) -> dict:
    """The configuration without the keys that say only where and how a run is done."""
    content = cfg.to_dict()
    for key in PLACE_KEYS:
        *parents, last = key.split(".")
        node = content
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    if content.get("INPUT", {}).get("EXIF") == "ignore":  # a newer key: older runs keep their hash
        del content["INPUT"]["EXIF"]
    return content


def config_hash(cfg: CfgNode, evaluates: str = "") -> str:
    """Hex digest of what a run computes; two runs with the same digest may share a folder."""
    text = json.dumps([content_of(cfg), evaluates], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
