"""Times the sides of a benchmark, each in a process of its own, under two settings of malloc.

A suite is a module with ``prepare(side, **case) -> Callable`` that makes one side ready to be
timed. Both sides use the same threads, names, weights and learned numbers.

glibc returns the memory of large tensors to the system when they are freed, and allocating the next
one costs page faults. This slows the naive side most, so every ratio is also measured with raised
thresholds, so that freed memory is reused.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
MALLOC = {
    "default malloc": {},
    "malloc keeps": {
        "MALLOC_MMAP_THRESHOLD_": str(2**32),
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
    },
}
PATIENCE = 20.0  # seconds; what takes longer is run once
TIMES = 3
NAIVE = "naive"


def best_time(step: Callable[[], object]) -> float:
    """Seconds of the fastest of three runs after one to warm up; a long one is run once.

    BENCHMARK_CLOCK "cpu" counts CPU time, for a machine that other programs use too.
    """
    cpu = os.environ.get("BENCHMARK_CLOCK") == "cpu"
    clock = time.process_time if cpu else time.perf_counter
    found = []
    while len(found) <= TIMES and sum(found) < PATIENCE:
        start = clock()
        step()
        found.append(clock() - start)
    return min(found[1:] or found)


def in_a_process(module: str, side: str, case: dict, malloc: str) -> dict:
    """``seconds`` of a side, and the ``peak`` of its process's memory in bytes."""
    command = [sys.executable, "-m", "benchmarks._sides", module, side, json.dumps(case)]
    environment = {**os.environ, **MALLOC[malloc]}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(what: str, naive: float, ours: float, notes: str) -> dict:
    """A line of a table; times in seconds."""
    return {"what": what, "naive": naive, "ours": ours, "ratio": naive / ours, "notes": notes}


def compare(module: str, cases: dict[str, dict], sides: dict[str, str]) -> list[dict]:
    """A row per case, side and setting: what, naive and ours in seconds, ratio, notes.

    Args:
        cases: arguments of ``prepare`` by name. sides: what a row says of each side but the naive.
    """
    rows = []
    for name, case in cases.items():
        for malloc in MALLOC:
            naive = in_a_process(module, NAIVE, case, malloc)
            for side, says in sides.items():
                ours = in_a_process(module, side, case, malloc)
                found = row(
                    ", ".join(filter(None, (name, says, malloc))),
                    naive["seconds"],
                    ours["seconds"],
                    f"peak {naive['peak'] / 1e9:.2f} and {ours['peak'] / 1e9:.2f} GB",
                )
                said = f"{found['what']}: {found['ratio']:.1f}x, {found['notes']}"
                print(said, file=sys.stderr, flush=True)
                rows.append(found)
    return rows


def main() -> None:
    """The process of one side."""
    module, side, case = sys.argv[1:]
    torch.set_num_threads(int(os.environ.get("BENCHMARK_THREADS", os.cpu_count() or 1)))
    step = importlib.import_module(module).prepare(side, **json.loads(case))
    seconds = best_time(step)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print("\n" + json.dumps({"seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main()
