"""A pool of worker processes that do many runs each, without loading the backbone again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from dassl.utils.command_line import collect_rarely
from results.record import Interrupted
from results.shots import shots_order

from .events import BUSY, FAILED, RETRY_BUSY, Events, RunOne, RunOutcome, failed_dependency
from .planned_run import PlannedRun
from .processes import count_gpus, default_workers, listen_to_ctrl_c, worker_context
from .side_by_side import SideBySide

READY = "ready"  # sent by a worker that has room for another run
DEATHS = 2  # a run is given up when this many workers died in it
PATIENCE = 60.0  # seconds for workers to save their state when the pool is stopped


def run_pool(
    runs: Sequence[PlannedRun],
    run_one: RunOne,
    events: Events,
    workers: int = 0,
    together: int = 1,
) -> None:
    """Do the runs in worker processes; one that dies is replaced, and its runs continue.

    Args:
        workers: processes; 0 takes one per GPU, or one per core and at most 4 without GPUs. With
            GPUs, worker i sees only GPU i modulo their number.
        together: how many runs a worker does at a time, see :class:`SideBySide`.
    """
    pool = _Pool(runs, run_one, events, default_workers(workers), together)
    try:
        pool.work()
    finally:
        pool.stop()


class _Worker:
    """A process, the pipe to it, its current runs, and whether it has room for another."""

    def __init__(self, run_one: RunOne, number: int, workers: int, together: int):
        self.number, self.ready = number, True
        context = worker_context()
        self.runs: dict[Path, PlannedRun] = {}
        self.pipe, theirs = context.Pipe()
        gpus = count_gpus()
        gpu = str(number % gpus) if gpus else ""
        threads = max(1, (os.cpu_count() or 1) // workers)
        how = (theirs, run_one, dict(os.environ), gpu, threads, together)
        self.process = context.Process(target=_serve, args=how)
        self.process.start()
        theirs.close()

    def begin(self, run: PlannedRun) -> None:
        self.runs[run.folder], self.ready = run, False
        with contextlib.suppress(BrokenPipeError):  # it has just died, which its sentinel reports
            self.pipe.send(run)


class _Pool:
    def __init__(
        self,
        runs: Sequence[PlannedRun],
        run_one: RunOne,
        events: Events,
        workers: int,
        together: int,
    ):
        self.run_one, self.events, self.size, self.together = run_one, events, workers, together
        # the longest first, so that the workers end at about the same time
        self.queue = deque(sorted(runs, key=lambda run: -shots_order(run.shots)))
        self.later: list[tuple[float, PlannedRun]] = []  # busy elsewhere: when to retry
        self.outcomes: dict[Path, RunOutcome] = {}
        self.deaths: dict[Path, int] = {}
        self.workers: list[_Worker] = []
        self.folders = {run.folder for run in runs}

    def work(self) -> None:
        """Run until every run has ended."""
        while True:
            self._wake()
            self._hand_out()
            at_work = any(worker.runs for worker in self.workers)
            if not at_work and not self.queue and not self.later:
                return
            self._listen()

    def _wake(self) -> None:
        now = time.monotonic()
        self.queue.extend(run for at, run in self.later if at <= now)
        self.later = [(at, run) for at, run in self.later if at > now]

    def _hand_out(self) -> None:
        while run := self._next():
            worker = self._worker_for(run)
            if worker is None:
                self.queue.appendleft(run)
                return
            self.events.started(run)
            worker.begin(run)

    def _worker_for(self, run: PlannedRun) -> _Worker | None:
        """An idle worker, a new one, or the one with the fewest runs of those that have room."""
        ready = [w for w in self.workers if w.ready and not (w.runs and self._is_risky(w, run))]
        worker = min(ready, key=lambda w: len(w.runs), default=None)
        if len(self.workers) < self.size and (worker is None or worker.runs):
            free = set(range(self.size)) - {w.number for w in self.workers}
            worker = _Worker(self.run_one, min(free), self.size, self.together)
            self.workers.append(worker)
        return worker

    def _is_risky(self, worker: _Worker, run: PlannedRun) -> bool:
        """Whether one of the runs was in a worker that died; such a run is repeated alone."""
        return any(folder in self.deaths for folder in [run.folder, *worker.runs])

    def _next(self) -> PlannedRun | None:
        """The first run that waits for no other; None if there is none."""
        for _ in range(len(self.queue)):
            run = self.queue.popleft()
            failure = failed_dependency(run, self.outcomes)
            if failure:
                self._end(run, failure)
            elif run.needs in self.folders and run.needs not in self.outcomes:
                self.queue.append(run)
            else:
                return run
        return None

    def _listen(self) -> None:
        """Wait until a worker sends an outcome, has room for a run, or dies."""
        pipes = {worker.pipe: worker for worker in self.workers}
        ends = {worker.process.sentinel: worker for worker in self.workers}
        for ready in wait([*pipes, *ends], timeout=RETRY_BUSY):
            worker = pipes.get(ready) or ends[ready]
            if worker not in self.workers:
                continue  # both its pipe and its sentinel were ready
            try:
                message = worker.pipe.recv() if worker.pipe.poll() else None
            except (EOFError, OSError):
                message = None
            if message == READY:
                worker.ready = True
            elif message is not None:
                folder, outcome = message
                self._end(worker.runs.pop(folder), outcome)
            elif not worker.process.is_alive() or ready is worker.pipe:
                self._replace_dead(worker)

    def _replace_dead(self, worker: _Worker) -> None:
        """Queue a dead worker's runs again, or give them up."""
        worker.process.join(PATIENCE)
        self.workers.remove(worker)
        why = _cause(worker.process.exitcode)
        for run in reversed(worker.runs.values()):
            died = self.deaths[run.folder] = self.deaths.get(run.folder, 0) + 1
            if died < DEATHS:
                self.queue.appendleft(run)
            else:
                error = f"{died} worker processes died in it ({why})"
                self._end(run, RunOutcome(FAILED, error=error))

    def _end(self, run: PlannedRun, outcome: RunOutcome) -> None:
        if outcome.status == BUSY:
            self.later.append((time.monotonic() + RETRY_BUSY, run))
            return
        self.outcomes[run.folder] = outcome
        self.events.ended(run, outcome)

    def stop(self) -> None:
        """Stop the workers; their current runs are recorded as interrupted."""
        for worker in self.workers:
            if worker.runs and worker.process.is_alive():
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


def _serve(
    pipe: Connection,
    run_one: RunOne,
    environ: dict[str, str],
    gpu: str,
    threads: int,
    together: int,
) -> None:
    """Do the runs that come through the pipe until it is closed."""
    listen_to_ctrl_c()
    os.environ.clear()  # it may be that of an earlier moment, of the process that was forked
    os.environ.update(environ)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    collect_rarely()
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ready = True  # as the launcher takes a new worker to be
    try:
        with SideBySide(run_one, together) as at_work:
            while True:
                if at_work.has_room and not ready:
                    pipe.send(READY)
                    ready = True
                if not at_work.runs or (ready and pipe.poll()):
                    at_work.start(pipe.recv())
                    ready = False
                for run, outcome in at_work.work():
                    pipe.send((run.folder, outcome))
    except (EOFError, OSError, KeyboardInterrupt, Interrupted):
        return  # the launcher is done, or gone, or stops the pool


def _end_with_parent() -> None:
    """Send this process SIGTERM when the launcher is gone: nobody would receive the outcome."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
