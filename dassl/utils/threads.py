"""How many threads torch's operators use on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

PAYS = 1.3  # times that a step must be faster for more threads than one to be used
LONG = 0.05  # seconds; a step that takes one thread longer gains from more threads
TRIALS = 5
SMALL = 50_000_000  # multiplications; a step of fewer gains little from more threads


def choose_threads(step: Callable[[], object]) -> None:
    """Use one thread if more do not make ``step`` faster, else as many as torch was started with.

    Threads that share small tensors mostly wait for each other, and on a busy machine so long that
    a small step looks like a large one. Only the time with one thread says which of them it is.

    Args:
        step: a part of the work, run before, so that nothing in it is done for the first time.
    """
    most = _threads_at_start()
    if most == 1:
        return
    torch.set_num_threads(1)
    one = _fastest(step)
    torch.set_num_threads(most)
    if one > LONG or one > PAYS * (several := _fastest(step)):
        return
    torch.set_num_threads(1)
    print(f"One thread: a pass takes {_ms(one)} with 1 thread, {_ms(several)} with {most}")


def set_threads(multiplications: int) -> None:
    """Use one thread for steps of few multiplications, else as many as torch was started with.

    By size, not by time: the number of threads changes the last bits of a sum, so that a fit on
    the same data has to use the same one.
    """
    most = _threads_at_start()
    torch.set_num_threads(1 if multiplications < SMALL else most)


@cache
def _threads_at_start() -> int:
    return torch.get_num_threads()


def _fastest(step: Callable[[], object]) -> float:
    """Seconds of the fastest trial; one that takes LONG is not repeated."""
    found = []
    while len(found) < TRIALS and sum(found) < LONG:
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return min(found)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"
