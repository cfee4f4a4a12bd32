"""Runs on Slurm, through submitit: an array of jobs that share the runs among themselves.

Every job goes through all runs, starting at a place of its own, and does those that are neither
complete nor under way: the lock of each run directory is the queue. So it does not matter how many
jobs come to life, when, or whether one is killed.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.utils import UserError, read_json, write_json
from results.read import read_run
from results.record import is_locked
from sweeps.plan import PlannedRun

from .events import COMPLETE, FAILED, Attempt, Events, Outcome
from .serial import run_serial

POLL = 2.0  # seconds between looks at the run directories
FOLDER = ".slurm"  # in the sweep's folder: submitit's files, and the ids of the jobs
JOBS = "jobs.json"
WAKE_UP = 90  # seconds before its end at which a job is told to write down where it is


class Share:
    """What one job of the array does; submitit sends it to the node."""

    def __init__(self, runs: Sequence[PlannedRun], attempt: Attempt):
        self.runs, self.attempt = list(runs), attempt

    def __call__(self, job: int, jobs: int) -> list[tuple[str, Outcome]]:
        """Folder and outcome of each run that is ended when this job looks at it."""
        start = job * len(self.runs) // jobs
        ended: list[tuple[str, Outcome]] = []
        events = Events(
            started=lambda run: print(f"{run}: {run.folder}", flush=True),
            ended=lambda run, outcome: ended.append((str(run.folder), outcome)),
        )
        run_serial([*self.runs[start:], *self.runs[:start]], self.attempt, events)
        return ended

    def checkpoint(self, job: int, jobs: int):
        """What to do after a requeue: the same; what is complete is left alone."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, job, jobs)


def run_slurm(
    runs: Sequence[PlannedRun],
    attempt: Attempt,
    events: Events,
    folder: Path,
    options: dict[str, Any] | None = None,
) -> None:
    """Submit jobs, or find the ones of an earlier call, and follow them until they are gone.

    Args:
        folder: the sweep's; it must be the same on every node.
        options: the ``cluster`` keys of the sweep.

    Raises:
        UserError: submitit or Slurm is not there, or Slurm refuses the jobs.
    """
    options = options or {}
    watch = _Watch(runs, events)
    watch.look()
    ids = alive(_known_ids(folder))
    if ids:
        print(f"following the Slurm jobs {', '.join(ids)}, which are under way", flush=True)
        _follow(watch, ids)
    jobs = []
    if watch.waiting:
        jobs = _submit(watch.waiting, attempt, folder, options)
        _follow(watch, sorted({job.job_id.split("_")[0] for job in jobs}))
    watch.close(_errors(jobs))


def _known_ids(folder: Path) -> list[str]:
    path = folder / FOLDER / JOBS
    return list(map(str, read_json(path))) if path.exists() else []


def alive(ids: Sequence[str]) -> list[str]:
    """The jobs, of those ids, that Slurm still has: waiting, running or being requeued.

    Raises:
        UserError: Slurm cannot be asked.
    """
    found = []
    for job in ids:
        try:
            asked = subprocess.run(
                ["squeue", "--noheader", "--format=%i", f"--jobs={job}"],
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise UserError("there is no squeue here: start the sweep where Slurm is") from None
        if asked.returncode and "Invalid job id" not in asked.stderr:
            raise UserError(f"Slurm does not answer: {asked.stderr.strip()}")
        if asked.stdout.strip():
            found.append(job)
    return found


def _submit(
    runs: Sequence[PlannedRun], attempt: Attempt, folder: Path, options: dict[str, Any]
) -> list:
    try:
        import submitit
    except ImportError:
        raise UserError("cluster slurm needs submitit: pip install submitit") from None
    count = min(options.get("jobs", 1), len(runs))
    place = (folder / FOLDER).resolve()
    try:
        executor = submitit.AutoExecutor(
            folder=place,
            cluster="slurm",
            slurm_max_num_timeout=options.get("requeues", 10),
        )
        executor.update_parameters(**parameters(options))
        with _importable():
            jobs = executor.map_array(Share(runs, attempt), range(count), [count] * count)
    except (RuntimeError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"Slurm did not take the jobs: {error}") from None
    write_json(sorted({job.job_id.split("_")[0] for job in jobs}), place / JOBS)
    print(f"submitted: {', '.join(job.job_id for job in jobs)}; logs: {place}", flush=True)
    return jobs


def parameters(options: dict[str, Any]) -> dict[str, Any]:
    """The sweep's ``cluster`` keys as submitit calls them."""
    names = {
        "partition": "slurm_partition",
        "gpus": "gpus_per_node",
        "cpus": "cpus_per_task",
        "memory_gb": "mem_gb",
        "minutes": "timeout_min",
    }
    found = {name: options[key] for key, name in names.items() if options.get(key)}
    return {
        "name": "softcpt",
        "timeout_min": 60,
        "slurm_signal_delay_s": WAKE_UP,
        "slurm_additional_parameters": {"requeue": True, **(options.get("extra") or {})},
        **found,
    }


class _importable:
    """Jobs import the modules of this process from where it did."""

    def __enter__(self) -> None:
        self.before = os.environ.get("PYTHONPATH")
        root = str(Path(__file__).parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, self.before]))

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = self.before


def _follow(watch: _Watch, ids: Sequence[str]) -> None:
    while watch.waiting and alive(ids):
        watch.look()
        time.sleep(POLL)
    watch.look()


def _errors(jobs: Sequence) -> dict[str, str]:
    """Errors by folder, from the jobs that ended in order."""
    found: dict[str, str] = {}
    for job in jobs:
        if job.paths.result_pickle.exists() and job.exception() is None:
            found |= {folder: o.error for folder, o in job.result() if o.status == FAILED}
    return found


class _Watch:
    """Tells of runs by what their folders say."""

    def __init__(self, runs: Sequence[PlannedRun], events: Events):
        self.waiting, self.events = list(runs), events
        self.seen: set[Path] = set()
        self.first = True

    def look(self) -> None:
        """Tell what has changed since the last look."""
        for run in list(self.waiting):
            record = read_run(run.folder)
            if record.complete:
                seconds = 0.0 if self.first else record.seconds or 0.0
                self._end(run, Outcome(COMPLETE, seconds))
            elif run.folder not in self.seen and is_locked(run.folder):
                self.seen.add(run.folder)
                self.events.started(run)
        self.first = False

    def close(self, errors: dict[str, str]) -> None:
        """No job is left: what is not complete has failed."""
        for run in list(self.waiting):
            record = read_run(run.folder)
            error = errors.get(str(run.folder)) or record.error
            error = error or f"its Slurm job ended, and it is {record.status}"
            self._end(run, Outcome(FAILED, error=error))

    def _end(self, run: PlannedRun, outcome: Outcome) -> None:
        self.waiting.remove(run)
        self.events.ended(run, outcome)
