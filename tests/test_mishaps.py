"""Interruptions, full disks, broken files: what a run leaves, and how it continues."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from dassl.engine.resume import FILE as STATE
from dassl.utils.logger import Tee
from tests._command_line import one_line, status, stopping
from trainers.coop import CoOp

ROOT = Path(__file__).parents[1]
NOISE = random.Random(0).randbytes(500)


def kill(number):
    def method(self):
        os.kill(os.getpid(), number)
        time.sleep(5)  # the signal comes first

    return method


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_recorded_and_the_same_command_goes_on(
    cli, tmp_path, monkeypatch, number
):
    assert cli(output=tmp_path / "whole")[0] == 0
    first = CoOp.before_epoch

    def before(self):
        if self.epoch == 1:
            kill(number)(self)
        first(self)

    monkeypatch.setattr(CoOp, "before_epoch", before)
    code, _, err = cli()
    assert code == 130 and err == "interrupted: the same command continues from here\n"
    assert status(tmp_path / "run") == "interrupted"
    monkeypatch.setattr(CoOp, "before_epoch", first)
    code, out, _ = cli()
    assert code == 0 and "Resuming after epoch 1 of 2" in out
    left, right = (
        json.loads((tmp_path / f / "results.json").read_text()) for f in ("run", "whole")
    )
    assert left["run"].pop("resumed") and not right["run"].pop("resumed")
    assert {**left, "run": 0} == {**right, "run": 0}


@pytest.mark.parametrize("damage", ["cut", "noise", "other", "empty"])
def test_a_corrupt_state_is_said_and_the_one_before_is_used(cli, tmp_path, monkeypatch, damage):
    whole = CoOp.after_epoch
    monkeypatch.setattr(CoOp, "after_epoch", stopping(whole, KeyboardInterrupt, epoch=2))
    assert cli("OPTIM.MAX_EPOCH", "4")[0] == 130
    path = tmp_path / "run" / STATE
    content = path.read_bytes()
    if damage == "other":
        torch.save({"epoch": 3}, path)
    else:
        noise = {"cut": content[: len(content) // 2], "noise": NOISE, "empty": b""}
        path.write_bytes(noise[damage])
    monkeypatch.setattr(CoOp, "after_epoch", whole)
    code, out, _ = cli("OPTIM.MAX_EPOCH", "4")
    assert code == 0 and f"{path}" in out and "looking for the state before it" in out
    assert "Resuming after epoch 2 of 4" in out


@pytest.mark.parametrize("part", ["model", "state", "record", "log"])
def test_a_full_disk(cli, tmp_path, monkeypatch, part):
    """Writes of one kind of file fail from the first epoch on; then there is space again."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        if part == "log":

            def write(self, text):
                if text.startswith("epoch ["):
                    raise full
                return len(text)

            patch.setattr(Tee, "write", write)
        else:
            module = {"model": "dassl.utils.checkpoint", "state": "dassl.engine.resume"}.get(part)
            name = f"{module}.write_tensors" if module else "results.record.write_json"

            def fail(*args):
                raise full

            patch.setattr(name, fail)
        code, _, err = cli()
    assert code == 1 and one_line(err) and "No space left on device" in err, err
    assert cli()[0] == 0 and status(tmp_path / "run") == "complete"
    assert not list((tmp_path / "run").rglob(".tmp*"))


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a file system")
def test_a_disk_that_is_full(cli, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        code, _, err = cli(output=place / "run")
        assert code == 1 and one_line(err) and "No space left on device" in err, err
        subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)
        assert cli(output=place / "run")[0] == 0
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_an_output_folder_that_cannot_be_written(cli, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = cli(output=tmp_path / "file")
    assert code == 2 and one_line(err, f"error: cannot write to {tmp_path / 'file'}: "), err
    code, _, err = cli(output=tmp_path / "file" / "below")
    assert code == 2 and "cannot write to" in err
    readonly = tmp_path / "readonly"
    readonly.mkdir()
    readonly.chmod(0o555)
    if os.access(readonly, os.W_OK):
        readonly = Path("/proc/softcpt")  # nobody may write there, root included
    code, _, err = cli(output=readonly)
    assert code == 2 and one_line(err, f"error: cannot write to {readonly}"), err


def test_two_launches_of_one_run(cli, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        code, _, err = cli()
    assert code == 2 and one_line(err) and "another process is working in" in err
    assert not (tmp_path / "run" / "results.json").exists()
    assert cli()[0] == 0


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "hashes": [], "status": "complete"}']
)
def test_a_broken_record(cli, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(content)
    code, _, err = cli()
    assert code == 2 and one_line(err) and "results.json" in err


@pytest.mark.slow
def test_two_processes_at_once_never_mix(tmp_path):
    words = ["--trainer", "CoOp", "--backbone", "tiny/random", "--seed", "1"]
    words += ["--dataset-config-file", "configs/datasets/digits7.yaml"]
    words += ["--output-dir", str(tmp_path / "run"), "DATASET.SUBSAMPLE_TASKS", "task0"]
    words += ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "3", "DATALOADER.NUM_WORKERS", "0"]
    command = [sys.executable, "train.py", *words]
    both = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ends = [(*process.communicate(timeout=300), process.returncode) for process in both]
    assert all("Traceback" not in err for _, err, _ in ends)
    codes = sorted(code for _, _, code in ends)
    assert codes in ([0, 0], [0, 2])  # the second found it complete, or was refused
    assert status(tmp_path / "run") == "complete"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("Finished training") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_run(tmp_path, number):
    """Ctrl-C and a scheduler's SIGTERM reach the loader's workers too."""
    words = ["--trainer", "CoOp", "--backbone", "tiny/random", "--seed", "1"]
    words += ["--dataset-config-file", "configs/datasets/digits7.yaml"]
    words += ["--output-dir", str(tmp_path / "run"), "DATASET.SUBSAMPLE_TASKS", "task0"]
    words += ["DATASET.NUM_SHOTS", "4", "OPTIM.MAX_EPOCH", "500", "DATALOADER.NUM_WORKERS", "2"]
    words += ["DATALOADER.TRAIN_X.BATCH_SIZE", "8"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "run" / STATE).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "interrupted: the same command continues from here\n"
    assert status(tmp_path / "run") == "interrupted"
