"""Worker processes: how many, and how they start."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from typing import Any

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


@contextlib.contextmanager
def preparing_workers(modules: Sequence[str]) -> Iterator[None]:
    """Import modules, beside the block, in the process that workers are forked from, if they are.

    If the block fails, that process is ended: while it imports, for seconds, it holds the terminal
    or the pipe that the sweep writes to.
    """
    if _may_fork():
        multiprocessing.set_forkserver_preload(list(modules))
        _start_fork_server()
    try:
        yield
    except BaseException:
        _end_fork_server()
        raise


def _end_fork_server() -> None:
    """End the process that workers are forked from, if it runs; the next worker starts another."""
    server: Any = forkserver._forkserver
    if (pid := getattr(server, "_forkserver_pid", None)) is not None:
        os.kill(pid, signal.SIGKILL)
        server._stop()


def worker_context() -> Any:  # a context of multiprocessing; BaseContext declares no Process
    """How to start the next worker: by a fork, where that is possible and safe."""
    forks = _may_fork() and _start_fork_server()
    return multiprocessing.get_context("forkserver" if forks else "spawn")


def listen_to_ctrl_c() -> None:
    """Let a worker receive SIGINT, which the process that it was forked from does not."""
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _may_fork() -> bool:
    """A fork is safe from a process that has not used a GPU and has one thread; not on macOS."""
    return sys.platform == "linux" and not count_gpus()


def _start_fork_server() -> bool:
    """Start the process that workers are forked from unless it runs; whether there is one.

    It imports what this process would: Python 3.11 does not give it ``sys.path``, and it would
    import from the current folder. SIGINT is blocked in it, as it would print a traceback.
    """
    before = dict(os.environ)
    os.environ.update(PYTHONPATH=os.pathsep.join(sys.path), PYTHONSAFEPATH="1")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a Ctrl-C waits for its end
    try:
        forkserver.ensure_running()
    except OSError:  # the path of the temporary folder is too long for a socket
        return False
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return True
