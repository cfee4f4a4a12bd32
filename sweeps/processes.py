"""Worker processes: how many, and how they start."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from dassl.utils import UserError

GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD and WSL


def default_workers(wanted: int = 0) -> int:
    """The number of workers; 0 chooses.

    Raises:
        UserError: fewer than none.
    """
    if wanted < 0:
        raise UserError(f"a pool needs 1 worker or more (0 chooses), but workers is {wanted}")
    return wanted or count_gpus() or min(os.cpu_count() or 1, 4)


def count_gpus() -> int:
    """The number of GPUs; without a driver's device file on Linux, 0 without importing torch."""
    if sys.platform == "linux" and not any(map(os.path.exists, GPU_FILES)):
        return 0
    import torch

    return torch.cuda.device_count()


def prepare_workers(modules: Sequence[str]) -> None:
    """Begin to import modules in the process that workers are forked from, if they are."""
    if sys.platform == "linux" and not count_gpus():
        multiprocessing.set_forkserver_preload(list(modules))
        _forks()


def worker_context() -> BaseContext:
    """How to start workers: by a fork on Linux without a GPU.

    A fork is safe from a process that has not used a GPU and has no other thread of Python.
    """
    forks = sys.platform == "linux" and not count_gpus() and _forks()
    return multiprocessing.get_context("forkserver" if forks else "spawn")


@contextlib.contextmanager
def like_this_process() -> Iterator[None]:
    """Let the process that workers are forked from import what this one would.

    Python 3.11 does not give it ``sys.path``, so it would import from the current folder. Ctrl-C
    is ignored in it, or it would print a traceback; workers set that back.
    """
    before, handler = dict(os.environ), signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(PYTHONPATH=os.pathsep.join(sys.path), PYTHONSAFEPATH="1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.signal(signal.SIGINT, handler)


@cache
def _forks() -> bool:
    """Start the process that workers are forked from; whether there is one."""
    try:
        with like_this_process():
            forkserver.ensure_running()
    except OSError:  # a temporary folder whose path is too long for a socket
        return False
    return True
