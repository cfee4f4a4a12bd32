"""Processes that run the checks on a GPU in parallel; a crash ends only its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAUSE = 0.2  # seconds between two looks at the processes


class Worker:
    """A process that runs the checks of some cases, ``benchmarks/_device_checks.py``.

    Args:
        cases: their names. number: of this worker. folder: of its runs and files.
    """

    def __init__(self, cases: list[str], number: int, folder: Path, small: bool):
        self.cases = cases
        self.results, self.log = folder / f"w{number}.jsonl", folder / f"w{number}.log"
        command = [sys.executable, "-u", "-m", "benchmarks._device_checks"]
        command += [str(folder), str(self.results), *cases, *(["--small"] if small else [])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file
            )
        self.rows: list[dict] = []

    def new_rows(self) -> list[dict]:
        """What it has found since the last call; of a line that is being written nothing."""
        if not self.results.exists():
            return []
        lines = self.results.read_text(encoding="utf-8").split("\n")[:-1]
        new = [json.loads(line) for line in lines[len(self.rows) :]]
        self.rows += new
        return new

    def ending(self) -> list[dict]:
        """A row that says so, if the process did not come to its end; ends it if need be."""
        late = self.process.poll() is None
        if late:
            self.process.kill()
        code = self.process.wait()
        if code == 0:
            return []
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        case = self.rows[-1]["case"] if self.rows else self.cases[0]
        said = "cut off, no time left" if late else f"ended with exit code {code}"
        note = f"{said}: {lines[-1] if lines else ''}"[:300]
        after = self.cases[self.cases.index(case) + 1 :] if case in self.cases else []
        rows = [failed(name, "all", f"not begun: the process {said}") for name in after]
        return [failed(case, "the process", note, "\n".join(lines[-40:])), *rows]


def failed(case: str, check: str, note: str, traceback: str = "") -> dict:
    """A row of a check that was not done."""
    row = {"case": case, "check": check, "ok": False, "seconds": 0.0}
    return {**row, "note": note, "traceback": traceback}


def shared_out(
    names: list[str], folder: Path, seconds: float, at_once: int, each: int, small: bool
) -> Iterator[dict]:
    """Yield the rows of all cases as they come, and at the end rows of what was not done.

    Args:
        seconds: after so long, processes are ended and no more begun.
        at_once: processes at a time. each: cases of a process.
    """
    end, number = time.monotonic() + seconds, 0
    queue, running = list(names), []
    while (queue or running) and time.monotonic() < end:
        while queue and len(running) < at_once:
            running.append(Worker(queue[:each], number, folder, small))
            queue, number = queue[each:], number + 1
        time.sleep(PAUSE)
        ended = [worker for worker in running if worker.process.poll() is not None]
        for worker in running:
            yield from worker.new_rows()
        for worker in ended:
            running.remove(worker)
            yield from worker.ending()
    for worker in running:
        yield from worker.new_rows()
        yield from worker.ending()
    for name in queue:
        yield failed(name, "all", "not begun: no time left")
