"""A pool of worker processes, each of which does many runs without loading the backbone again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from dassl.utils import UserError
from results.record import Interrupted
from sweeps.plan import PlannedRun

from .events import BUSY, FAILED, RETRY_BUSY, Attempt, Events, Outcome, unmet

DEATHS = 2  # a run that so many workers died of is given up
PATIENCE = 60.0  # seconds that workers have to write down where they are, when all is stopped


def run_pool(
    runs: Sequence[PlannedRun], attempt: Attempt, events: Events, workers: int = 0
) -> None:
    """Do the runs in worker processes; one that dies is replaced, and its run goes on.

    Args:
        workers: processes; 0 takes one per GPU, or one per core and at most 4 without GPUs. With
            GPUs, worker i sees only GPU i modulo their number.
    """
    pool = _Pool(runs, attempt, events, default_workers(workers))
    try:
        pool.work()
    finally:
        pool.stop()


def default_workers(wanted: int = 0) -> int:
    """The number of workers; 0 chooses.

    Raises:
        UserError: fewer than none.
    """
    if wanted < 0:
        raise UserError(f"a pool needs 1 worker or more (0 chooses), but workers is {wanted}")
    return wanted or torch.cuda.device_count() or min(os.cpu_count() or 1, 4)


class _Worker:
    """A process, the pipe to it, and the run it is at."""

    def __init__(self, context, attempt: Attempt, number: int, workers: int):
        self.number = number
        self.run: PlannedRun | None = None
        self.pipe, theirs = context.Pipe()
        gpus = torch.cuda.device_count()
        gpu = str(number % gpus) if gpus else ""
        threads = max(1, (os.cpu_count() or 1) // workers)
        self.process = context.Process(target=_serve, args=(theirs, attempt, gpu, threads))
        self.process.start()
        theirs.close()

    def begin(self, run: PlannedRun) -> None:
        self.run = run
        self.pipe.send(run)


class _Pool:
    def __init__(self, runs: Sequence[PlannedRun], attempt: Attempt, events: Events, workers: int):
        self.context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads
        self.attempt, self.events, self.size = attempt, events, workers
        self.queue = deque(runs)
        self.later: list[tuple[float, PlannedRun]] = []  # busy elsewhere: when to look again
        self.outcomes: dict[Path, Outcome] = {}
        self.deaths: dict[Path, int] = {}
        self.workers: list[_Worker] = []
        self.folders = {run.folder for run in runs}

    def work(self) -> None:
        """Until every run has ended."""
        while True:
            self._wake()
            self._hand_out()
            at_work = [worker for worker in self.workers if worker.run]
            if not at_work and not self.queue and not self.later:
                return
            self._listen(at_work)

    def _wake(self) -> None:
        now = time.monotonic()
        self.queue.extend(run for at, run in self.later if at <= now)
        self.later = [(at, run) for at, run in self.later if at > now]

    def _hand_out(self) -> None:
        for _ in range(self.size):
            run = self._next()
            if run is None:
                return
            worker = next((w for w in self.workers if w.run is None), None)
            if worker is None:
                if len(self.workers) >= self.size:
                    self.queue.appendleft(run)
                    return
                free = set(range(self.size)) - {w.number for w in self.workers}
                worker = _Worker(self.context, self.attempt, min(free), self.size)
                self.workers.append(worker)
            self.events.started(run)
            worker.begin(run)

    def _next(self) -> PlannedRun | None:
        """The first run that nothing keeps from starting."""
        for _ in range(len(self.queue)):
            run = self.queue.popleft()
            failure = unmet(run, self.outcomes)
            if failure:
                self._end(run, failure)
            elif run.needs in self.folders and run.needs not in self.outcomes:
                self.queue.append(run)
            else:
                return run
        return None

    def _listen(self, at_work: list[_Worker]) -> None:
        """Wait for a worker to say something or to die."""
        pipes = {worker.pipe: worker for worker in at_work}
        ends = {worker.process.sentinel: worker for worker in at_work}
        for ready in wait([*pipes, *ends], timeout=RETRY_BUSY):
            worker = pipes.get(ready) or ends[ready]
            if worker.run is None:
                continue  # both its pipe and its end were ready
            try:
                outcome = worker.pipe.recv() if worker.pipe.poll() else None
            except (EOFError, OSError):
                outcome = None
            if outcome is not None:
                run, worker.run = worker.run, None
                self._end(run, outcome)
            elif not worker.process.is_alive() or ready is worker.pipe:
                self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """Put a dead worker's run back, or give it up."""
        worker.process.join(PATIENCE)
        self.workers.remove(worker)
        run, worker.run = worker.run, None
        died = self.deaths[run.folder] = self.deaths.get(run.folder, 0) + 1
        if died < DEATHS:
            self.queue.appendleft(run)
            return
        why = _cause(worker.process.exitcode)
        self._end(run, Outcome(FAILED, error=f"{died} worker processes died of it ({why})"))

    def _end(self, run: PlannedRun, outcome: Outcome) -> None:
        if outcome.status == BUSY:
            self.later.append((time.monotonic() + RETRY_BUSY, run))
            return
        self.outcomes[run.folder] = outcome
        self.events.ended(run, outcome)

    def stop(self) -> None:
        """Ask the workers to end; a run under way is recorded as interrupted."""
        for worker in self.workers:
            if worker.run and worker.process.is_alive():
                worker.process.terminate()
            worker.pipe.close()
        deadline = time.monotonic() + PATIENCE
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit code {exitcode}"


def _serve(pipe: Connection, attempt: Attempt, gpu: str, threads: int) -> None:
    """A worker's life: do the runs that come through the pipe until it is closed."""
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            pipe.send(attempt(pipe.recv()))
    except (EOFError, OSError, KeyboardInterrupt, Interrupted):
        return  # the launcher is done, or gone, or has asked to stop


def _end_with_parent() -> None:
    """Stop as SIGTERM stops when the launcher is gone: nobody would hear the outcome."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
