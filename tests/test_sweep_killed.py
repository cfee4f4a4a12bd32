"""Sweeps whose workers, launchers or jobs are killed: run again, and they go on."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).parent.parent
GRID = {
    "output": "out",
    "datasets": ["digits7"],
    "shots": [1, 4],
    "seeds": [1],
    "methods": {
        "zero-shot": {
            "trainer": "ZeroshotCLIP",
            "config": "configs/trainers/ZeroShot/tiny.yaml",
            "once": True,
        },
        "SoftCPT": {"trainer": "MTCoOp", "config": "configs/trainers/MTCoOp/tiny_ep50.yaml"},
    },
    "overrides": {
        "MODEL.BACKBONE.NAME": "tiny/random",
        "OPTIM.MAX_EPOCH": 100,
        "TRAIN.RESUME_SECONDS": 0,
    },
    "cluster": {"jobs": 2, "cpus": 1, "minutes": 10},
}

pytestmark = pytest.mark.slow


def start(folder, *argv):
    """A sweep over the grid in ``folder``, in a process group of its own."""
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    command = [sys.executable, str(ROOT / "sweep.py"), "grid.yaml", *argv]
    output = (folder / "output.txt").open("a")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # runs side by side share the cores
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def finish(folder, *argv, seconds=240):
    code = start(folder, *argv).wait(seconds)
    assert code == 0, (folder / "output.txt").read_text()[-3000:]


def records(folder):
    """results.json by run, without what may differ between a resumed and a straight run."""
    found = {}
    for path in sorted((folder / "out").rglob("results.json")):
        content = json.loads(path.read_text())
        content["resumed"] = content.pop("run").get("resumed")
        found[str(path.parent.relative_to(folder))] = content
    return found


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def under_way(folder):
    """The folder of a run that has saved a state and is not complete."""
    for path in (folder / "out").rglob("resume.pt"):
        record = json.loads((path.parent / "results.json").read_text())
        if record["status"] == "running":
            return path.parent
    return None


def children(pid):
    """Processes that a process started, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words = (entry / "cmdline").read_text()
            except OSError:
                continue
            if parent == pid:
                found[int(entry.name)] = words
    return found


def workers_of(launcher):
    """The worker processes of a launcher; on a CPU they are forked by a server it has started."""
    started = children(launcher)
    servers = [pid for pid, words in started.items() if "forkserver" in words]
    return [pid for pid, words in started.items() if "spawn_main" in words] + [
        pid for server in servers for pid in children(server)
    ]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The records of the grid, run without a disturbance."""
    folder = tmp_path_factory.mktemp("straight")
    finish(folder, "--cluster", "debug")
    return records(folder)


def check(folder, straight):
    """All complete, none lost, none done twice, none counted half: every record as it should be."""
    found = records(folder)
    assert found.keys() == straight.keys() and len(found) == 3
    for name, content in found.items():
        assert {**content, "resumed": False} == straight[name], name
        finished = (folder / name / "log.txt").read_text().count("Finished training")
        # one that was told to go between training and testing says so again
        assert 1 <= finished <= 1 + content["resumed"], name


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_worker_and_a_killed_launcher(tmp_path, straight):
    launcher = start(tmp_path, "--cluster", "local", "--workers", "2")
    try:
        wait_for(lambda: under_way(tmp_path))
        worker = workers_of(launcher.pid)[0]
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: gone(worker))
        wait_for(lambda: under_way(tmp_path))
        workers = workers_of(launcher.pid)
    finally:
        launcher.kill()
        launcher.wait()
    wait_for(lambda: all(map(gone, workers)))
    assert any(record["status"] != "complete" for record in records(tmp_path).values())
    finish(tmp_path, "--cluster", "local", "--workers", "2")
    assert any(record["resumed"] for record in records(tmp_path).values())
    check(tmp_path, straight)


def test_two_launchers_at_once_share_the_runs(tmp_path, straight):
    both = [start(tmp_path, "--cluster", "debug") for _ in range(2)]
    assert [process.wait(240) for process in both] == [0, 0]
    assert not any(record["resumed"] for record in records(tmp_path).values())
    check(tmp_path, straight)


# ------------------------------------------------------------------ Slurm

SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmUser=root
ReturnToService=2
MinJobAge=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def alone():
    """Holds a lock of this machine: a second Slurm would find the port of the first taken."""
    with FileLock(Path(tempfile.gettempdir(), "softcpt-tests-slurm.lock"), timeout=600):
        yield


@pytest.fixture
def cluster(alone, tmp_path_factory, monkeypatch):
    """A Slurm of one node on this machine; what was started is stopped by its process id."""
    needed = ("slurmctld", "slurmd", "sbatch", "munged", "runuser")
    missing = [name for name in needed if not shutil.which(name)]
    if missing or os.getuid() != 0:
        pytest.skip(f"needs root and slurm-wlm with munge; missing: {', '.join(missing) or 'root'}")
    pytest.importorskip("submitit")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    config = folder / "slurm.conf"
    config.write_text(SLURM.format(host=os.uname().nodename, folder=folder))
    monkeypatch.setenv("SLURM_CONF", str(config))
    munge = None
    if not Path("/run/munge/munge.socket.2").exists():
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge")
        munge = subprocess.Popen(["runuser", "-u", "munge", "--", "munged", "--foreground"])
        wait_for(Path("/run/munge/munge.socket.2").exists, 20)
    daemons = [
        subprocess.Popen([name, "-D", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=log)
        for name in ("slurmctld", "slurmd")
        for log in [(folder / f"{name}.err").open("w")]
    ]
    try:
        wait_for(lambda: "idle" in said("sinfo", "--noheader", "--format=%T"), 40)
        yield folder
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            said("scancel", "--user=root")
        for process in [*daemons[::-1], *([munge] if munge else [])]:
            process.terminate()
            process.wait(30)


def start_now():
    """Slurm keeps a requeued job back for two minutes; let it go."""
    for job in said("squeue", "--noheader", "--states=PENDING", "--format=%i").split():
        said("scontrol", "update", f"JobId={job}", "StartTime=now")


def said(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout


def test_slurm_with_a_preemption(tmp_path, cluster, straight):
    """An array of two jobs; one is told to go while it trains, is requeued, and goes on."""
    launcher = start(tmp_path, "--cluster", "slurm")
    try:
        run = wait_for(lambda: under_way(tmp_path), 180)
        running = said("squeue", "--noheader", "--states=RUNNING", "--format=%i").split()
        assert running
        for job in running:
            said("scancel", "--signal=USR2", job)  # as --signal does before the time limit
        wait_for(lambda: json.loads((run / "results.json").read_text())["status"] != "running", 60)
        wait_for(lambda: start_now() or launcher.poll() is not None, 300)
        assert launcher.returncode == 0, (tmp_path / "output.txt").read_text()[-3000:]
    finally:
        launcher.kill()
    assert any(record["resumed"] for record in records(tmp_path).values())
    check(tmp_path, straight)
    logs = "".join(path.read_text() for path in (tmp_path / "out/.slurm").glob("*_log.*"))
    assert "Caught signal SIGUSR2" in logs


def test_slurm_jobs_are_found_again(tmp_path, cluster, straight):
    """The launcher is killed; the jobs go on, and the next call follows them."""
    launcher = start(tmp_path, "--cluster", "slurm")
    wait_for(lambda: under_way(tmp_path), 180)
    launcher.kill()
    launcher.wait()
    finish(tmp_path, "--cluster", "slurm")
    output = (tmp_path / "output.txt").read_text()
    assert "which are still running" in output and output.count("submitted:") == 1
    check(tmp_path, straight)
