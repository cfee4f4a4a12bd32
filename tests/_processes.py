"""Functions run by several processes that know of each other, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback

from dassl.utils import distributed


def in_processes(function, count: int = 2, seconds: float = 120) -> list[int]:
    """Run ``function()`` in forks of this process; their exit codes, 1 after an exception."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_one, args=(function, i, count, port)) for i in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(seconds)
        if worker.is_alive():  # it waits for one that failed
            worker.kill()
            worker.join()
    return [worker.exitcode for worker in workers]


def _one(function, rank: int, count: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        with distributed.session():
            function()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
