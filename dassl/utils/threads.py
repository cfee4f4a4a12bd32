"""How many threads torch's operators use on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

PAYS = 1.3  # times that a step must be faster for more threads than one to be used
LONG = 0.05  # seconds; a step that takes longer gains from more threads
TRIALS = 5


def choose_threads(step: Callable[[], object]) -> None:
    """Use one thread if more do not make ``step`` faster, else as many as torch was started with.

    Threads that share small tensors mostly wait for each other, and on a busy machine for long.

    Args:
        step: a part of the work, run before, so that nothing in it is done for the first time.
    """
    most = _threads_at_start()
    torch.set_num_threads(most)
    if most == 1 or (several := _fastest(step)) > LONG:
        return
    torch.set_num_threads(1)
    one = _fastest(step)
    if one > PAYS * several:
        torch.set_num_threads(most)
    else:
        print(f"One thread: a pass takes {_ms(one)} with 1 thread, {_ms(several)} with {most}")


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
