"""Engines that do many runs: what happens when a worker, a run or the launcher dies."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from dassl.utils import UserError
from sweeps import pool, processes, serial, slurm
from sweeps.cluster import Cluster
from sweeps.estimate import Estimate
from sweeps.events import Events, RunOutcome
from sweeps.planned_run import PlannedRun
from sweeps.pool import run_pool
from sweeps.serial import run_serial
from tests._attempts import attempt, calls
from tests._records import write

ROOT = Path(__file__).parents[2]


def planned(folder, note="", needs=None, **keys):
    keys = {"method": "A", "dataset": "d", "shots": 1, "seed": 1, **keys}
    return PlannedRun(folder=folder, argv=(), needs=needs, note=note, **keys)


class Told(Events):
    """Remembers what it was told."""

    def __init__(self):
        object.__setattr__(self, "log", [])
        object.__setattr__(self, "outcomes", {})
        super().__init__(lambda run: self.log.append(run.folder.name), self.note)

    def note(self, run, outcome):
        assert run.folder.name not in self.outcomes
        self.outcomes[run.folder.name] = outcome


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(serial, "RETRY_BUSY", 0.01)
    monkeypatch.setattr(pool, "RETRY_BUSY", 0.05)


LAUNCHER = """
import multiprocessing, os, sys
from sweeps.processes import preparing_workers

if __name__ == "__main__":
    with preparing_workers(["train"]):
        pass
    worker = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    worker.start()
    worker.join()
    print("PYTHONPATH" in os.environ)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_workers_import_nothing_from_the_present_folder(tmp_path):
    """A user may have a train.py there, and start sweep.py by its path."""
    (tmp_path / "train.py").write_text("open('imported', 'w').close()\n")
    (tmp_path / "here").mkdir()
    script = tmp_path / "here" / "launcher.py"
    script.write_text(f"import sys\nsys.path.append({str(ROOT)!r})\n{LAUNCHER}")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr
    assert not (tmp_path / "imported").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_refused_sweep_ends_what_imports_for_its_workers():
    with pytest.raises(UserError), processes.preparing_workers(["torch"]):
        server = forkserver._forkserver._forkserver_pid
        raise UserError("an unknown key")
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


@pytest.mark.parametrize("together", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_pool_outlives_its_workers(tmp_path, together):
    """Every run ends once, whoever dies; a run that kills its workers is given up."""
    notes = ["", "die once", "die", "busy once", "fail"]
    runs = [planned(tmp_path / f"run{i}", note) for i, note in enumerate(notes)]
    runs += [planned(tmp_path / "after", needs=runs[1].folder)]
    runs += [planned(tmp_path / "never", needs=runs[4].folder)]
    told = Told()
    run_pool([runs[-1], runs[-2], *runs[:-2]], attempt, told, workers=2, together=together)
    status = {name: outcome.status for name, outcome in told.outcomes.items()}
    failed = {name for name in status if status[name] == "failed"}
    assert status.keys() == {run.folder.name for run in runs}
    assert failed == {"run2", "run4", "never"}
    assert told.outcomes["run2"].error == "2 worker processes died in it (SIGKILL)"
    assert told.outcomes["never"].error == f"it needs {runs[4].folder}, which failed"
    assert [len(calls(run)) for run in runs[:-1]] == [1, 2, 2, 2, 1, 1]
    assert told.log.index("after") > told.log.index("run1")
    pids = [line.split()[0] for run in runs[:-1] for line in calls(run)]
    assert 4 <= len(set(pids)) <= 5  # workers do many runs
    assert not any(alive(int(pid)) for pid in pids)


def launch(runs):
    run_pool(runs, attempt, Told(), workers=1)


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_workers_stop_with_their_launcher(tmp_path, how):
    run = planned(tmp_path / "run", "wait")
    launcher = multiprocessing.get_context("spawn").Process(target=launch, args=([run],))
    launcher.start()
    wait_for(lambda: (run.folder / "calls").exists() and calls(run))
    worker = int(calls(run)[0].split()[0])
    os.kill(launcher.pid, how)
    launcher.join(30)
    wait_for((run.folder / "stopped").exists)  # as it does at SIGTERM: the run is recorded
    wait_for(lambda: not alive(worker))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_one_after_the_other(tmp_path):
    runs = [planned(tmp_path / "a", "busy once"), planned(tmp_path / "b", "fail")]
    runs += [planned(tmp_path / "c", needs=runs[0].folder)]
    runs += [planned(tmp_path / "d", needs=runs[1].folder)]
    told = Told()
    run_serial(runs, attempt, told)
    assert told.log == ["a", "b", "a", "c"]
    assert {k: o.status for k, o in told.outcomes.items()} == {
        "a": "complete",
        "b": "failed",
        "c": "complete",
        "d": "failed",
    }


def test_time_left_comes_from_the_nearest_kin(tmp_path):
    estimate = Estimate()
    one, four = planned(tmp_path, shots=1), planned(tmp_path, shots=4)
    other = planned(tmp_path, method="B")
    assert estimate.left([one]) is None and estimate.left([]) == 0
    estimate.add(one, 10.0)
    estimate.add(four, 30.0)
    estimate.add(four, None)
    assert (estimate.of(one), estimate.of(four), estimate.n) == (10.0, 30.0, 2)
    assert estimate.of(planned(tmp_path, shots=8)) == 20.0 and estimate.of(other) == 20.0
    assert estimate.left([one, four, other]) == 60.0
    assert estimate.left([one, four, other], workers=2) == 30.0
    assert estimate.left([one, four, other], workers=9) == 30.0  # not less than the longest


def test_slurm_follows_the_folders(tmp_path, monkeypatch):
    """Jobs of an earlier call are followed; what they leave is a failure that says why."""
    runs = [planned(tmp_path / name) for name in ("done", "later", "broken", "lost", "refused")]
    write(runs[0].folder)
    write(runs[2].folder, status="failed")
    (tmp_path / slurm.FOLDER).mkdir()
    (tmp_path / slurm.FOLDER / slurm.JOBS).write_text('["7"]')
    refused = (str(runs[4].folder), RunOutcome("failed", error="no such dataset"))
    broken = (str(runs[2].folder), RunOutcome("failed", error="mended since"))
    stored = pickle.dumps(("success", [refused, broken]))
    (tmp_path / slurm.FOLDER / "7_0_0_result.pkl").write_bytes(stored)
    (tmp_path / slurm.FOLDER / "7_1_0_result.pkl").write_bytes(stored[:50])
    looks = iter([["7"], ["7"], []])

    def squeue(ids):
        if not ids:
            return []
        found = next(looks)
        if not found:
            write(runs[1].folder)
        return found

    submitted, told = [], Told()
    monkeypatch.setattr(slurm, "alive", squeue)
    monkeypatch.setattr(slurm, "POLL", 0)
    monkeypatch.setattr(slurm, "_submit", lambda runs, *_: submitted.extend(runs) or [])
    slurm.run_slurm(runs, attempt, told, tmp_path, Cluster())
    assert [run.folder.name for run in submitted] == ["broken", "lost"]
    assert [(name, o.status) for name, o in told.outcomes.items()] == [
        ("done", "complete"),
        ("later", "complete"),
        ("refused", "failed"),
        ("broken", "failed"),
        ("lost", "failed"),
    ]
    assert told.outcomes["refused"].error == "no such dataset"
    assert told.outcomes["lost"].error == "its Slurm job ended before the run did: no results.json"


def test_slurm_options_and_their_absence(tmp_path, monkeypatch):
    chosen = slurm.parameters(Cluster(partition="gpu", gpus=1, minutes=30, extra={"qos": "x"}))
    assert chosen["slurm_partition"] == "gpu" and chosen["timeout_min"] == 30
    assert chosen["slurm_additional_parameters"] == {"requeue": True, "qos": "x"}
    assert "mem_gb" not in chosen
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no squeue here"):
        slurm.alive(["1"])
