"""Runs on Slurm, through submitit: an array of jobs that share the runs among themselves.

Every job goes through all runs, each from another start, and does those that are neither complete
nor running: the lock of each run directory is the queue. So it does not matter how many jobs
start, when, or whether one is killed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dassl.utils import UserError, read_json, write_json
from results.read import NO_FILE, read_run
from results.record import is_locked

from .cluster import Cluster
from .events import COMPLETE, FAILED, Events, RunOne, RunOutcome
from .planned_run import PlannedRun
from .serial import run_serial

POLL = 2.0  # seconds between looks at the run directories
FOLDER = ".slurm"  # in the sweep's folder: submitit's files, and the ids of the jobs
JOBS = "jobs.json"
SIGNAL_BEFORE_END = 90  # seconds before its time limit at which a job has to save its state


class SlurmWorker:
    """The work of one job of the array; submitit sends it to the node."""

    def __init__(self, runs: Sequence[PlannedRun], run_one: RunOne, together: int = 1):
        self.runs, self.run_one, self.together = list(runs), run_one, together

    def __call__(self, job: int, jobs: int) -> list[tuple[str, RunOutcome]]:
        """Do the runs; returns folder and outcome of each one that ended in this job."""
        start = job * len(self.runs) // jobs
        ended: list[tuple[str, RunOutcome]] = []
        events = Events(
            started=lambda run: print(f"{run}: {run.folder}", flush=True),
            ended=lambda run, outcome: ended.append((str(run.folder), outcome)),
        )
        runs = [*self.runs[start:], *self.runs[:start]]
        run_serial(runs, self.run_one, events, self.together)
        return ended

    def checkpoint(self, job: int, jobs: int):
        """The work after a requeue: the same, without the runs that are complete by then."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, job, jobs)


def run_slurm(
    runs: Sequence[PlannedRun],
    run_one: RunOne,
    events: Events,
    folder: Path,
    cluster: Cluster,
) -> None:
    """Submit jobs, or find those of an earlier call, and follow them until they have ended.

    Args:
        folder: the sweep's, on a file system that all nodes share.

    Raises:
        UserError: submitit or Slurm is not installed, or Slurm refuses the jobs.
    """
    watch = _FolderWatch(runs, events)
    watch.update()
    ids = alive(_known_ids(folder))
    if ids:
        print(f"following the Slurm jobs {', '.join(ids)}, which are still running", flush=True)
        _follow(watch, ids)
        # a run with a record failed at some time, perhaps long ago: it is tried again
        errors = _errors(folder, ids)
        watch.fail({run: e for run, e in errors.items() if read_run(Path(run)).status == NO_FILE})
    if watch.waiting:
        ids = _submit(watch.waiting, run_one, folder, cluster)
        _follow(watch, ids)
        watch.fail(_errors(folder, ids))
    watch.close()


def _known_ids(folder: Path) -> list[str]:
    path = folder / FOLDER / JOBS
    return list(map(str, read_json(path))) if path.exists() else []


def alive(ids: Sequence[str]) -> list[str]:
    """Those of the jobs that Slurm still has: waiting, running or being requeued.

    Raises:
        UserError: Slurm cannot be asked.
    """
    found = []
    for job in ids:
        try:
            answer = subprocess.run(
                ["squeue", "--noheader", "--format=%i", f"--jobs={job}"],
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise UserError("there is no squeue here: start the sweep where Slurm is") from None
        if answer.returncode and "Invalid job id" not in answer.stderr:
            raise UserError(f"Slurm does not answer: {answer.stderr.strip()}")
        if answer.stdout.strip():
            found.append(job)
    return found


def _submit(
    runs: Sequence[PlannedRun], run_one: RunOne, folder: Path, cluster: Cluster
) -> list[str]:
    """Submit the array of jobs; its ids."""
    try:
        import submitit
    except ImportError:
        raise UserError("cluster slurm needs submitit: pip install submitit") from None
    count = min(cluster.jobs, len(runs))
    place = (folder / FOLDER).resolve()
    try:
        executor = submitit.AutoExecutor(
            folder=place,
            cluster="slurm",
            slurm_max_num_timeout=cluster.requeues,
        )
        executor.update_parameters(**parameters(cluster))
        with _importable_by_jobs():
            worker = SlurmWorker(runs, run_one, cluster.together)
            jobs = executor.map_array(worker, range(count), [count] * count)
    except (RuntimeError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"Slurm did not take the jobs: {error}") from None
    ids = sorted({job.job_id.split("_")[0] for job in jobs})
    write_json(ids, place / JOBS)
    print(f"submitted: {', '.join(job.job_id for job in jobs)}; logs: {place}", flush=True)
    return ids


def parameters(cluster: Cluster) -> dict[str, Any]:
    """The sweep's ``cluster`` keys by submitit's names, without those left to Slurm."""
    chosen = {
        "slurm_partition": cluster.partition,
        "gpus_per_node": cluster.gpus,
        "cpus_per_task": cluster.cpus,
        "mem_gb": cluster.memory_gb,
    }
    return {
        "name": "softcpt",
        "timeout_min": cluster.minutes,
        "slurm_signal_delay_s": SIGNAL_BEFORE_END,
        "slurm_additional_parameters": {"requeue": True, **cluster.extra},
        **{name: value for name, value in chosen.items() if value},
    }


@contextlib.contextmanager
def _importable_by_jobs() -> Iterator[None]:
    """Put the repository, or where this package is installed, on PYTHONPATH for the jobs."""
    before = os.environ.get("PYTHONPATH")
    root = str(Path(__file__).parents[__name__.count(".")])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _follow(watch: _FolderWatch, ids: Sequence[str]) -> None:
    while watch.waiting and alive(ids):
        watch.update()
        time.sleep(POLL)
    watch.update()


def _errors(folder: Path, ids: Sequence[str]) -> dict[str, str]:
    """Errors by run folder, from the results that submitit has stored of the jobs.

    Args:
        folder: the sweep's.
    """
    found: dict[str, str] = {}
    for path in sorted(p for job in ids for p in (folder / FOLDER).glob(f"{job}_*_result.pkl")):
        try:
            outcome, result = pickle.loads(path.read_bytes())
        except Exception as error:  # a job that was killed while it wrote; anything may be raised
            print(f"{path} cannot be read ({type(error).__name__})", flush=True)
            continue
        if outcome == "success":
            found |= {run: ended.error for run, ended in result if ended.status == FAILED}
    return found


class _FolderWatch:
    """Follows runs by the records in their folders."""

    def __init__(self, runs: Sequence[PlannedRun], events: Events):
        self.waiting, self.events = list(runs), events
        self.seen: set[Path] = set()
        self.first = True

    def update(self) -> None:
        """Report runs that started or ended since the last call."""
        for run in list(self.waiting):
            record = read_run(run.folder)
            if record.complete:
                seconds = 0.0 if self.first else record.seconds or 0.0
                self._end(run, RunOutcome(COMPLETE, seconds))
            elif run.folder not in self.seen and is_locked(run.folder):
                self.seen.add(run.folder)
                self.events.started(run)
        self.first = False

    def fail(self, errors: dict[str, str]) -> None:
        """Report the runs that failed in a job, by their folders."""
        for run in [run for run in self.waiting if str(run.folder) in errors]:
            self._end(run, RunOutcome(FAILED, error=errors[str(run.folder)]))

    def close(self) -> None:
        """Report the remaining runs as failed, when no job is left."""
        for run in list(self.waiting):
            record = read_run(run.folder)
            error = record.error or f"its Slurm job ended before the run did: {record.status}"
            self._end(run, RunOutcome(FAILED, error=error))

    def _end(self, run: PlannedRun, outcome: RunOutcome) -> None:
        self.waiting.remove(run)
        self.events.ended(run, outcome)
