"""Runs outlive the reader of their output; names and paths are right in every environment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import parse_test_res
import sweep
import train

ROOT = Path(__file__).parent.parent
RUN = (
    *("train.py", "--trainer", "CoOp", "--backbone", "tiny/random", "--seed", "1"),
    *("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0"),
)
FLOWER, TASK = "Blüte", "Pflanzen größer 日本"
LOCALES = {
    "C": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Latin-1": {"LC_ALL": "en_US.ISO-8859-1"},
    "ASCII output": {"PYTHONIOENCODING": "ascii"},
}


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture
def data(tmp_path):
    """The root of an ImageFolder of two classes."""
    for name, colour in ((FLOWER, "red"), ("leaf", "green")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(8):
            image = Image.new("RGB", (32, 32), colour)
            image.putpixel((i, 0), (i, i, i))
            image.save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def words(data, output, *more):
    yaml = "configs/datasets/image_folder.yaml"
    where = ("--dataset-config-file", yaml, "--root", str(data), "--output-dir", str(output))
    return [sys.executable, *RUN, *where, *more]


def complete(folder):
    assert json.loads((folder / "results.json").read_text("utf-8"))["status"] == "complete"
    log = (folder / "log.txt").read_text("utf-8")
    assert ("Finished training" in log and "* accuracy" in log) or "* overall_metric" in log
    return log


@pytest.mark.parametrize(
    "redirection", ["| head -1", *(slow(s) for s in (">&-", "> /dev/full", ">&- 2>&- <&-"))]
)
def test_a_run_goes_on_without_its_output(data, tmp_path, redirection):
    script = f'"$@" {redirection}'
    command = ["bash", "-c", f"set -o pipefail; {script}", "bash", *words(data, tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    complete(tmp_path / "run")


@pytest.mark.slow
def test_a_run_goes_on_without_its_terminal(data, tmp_path):
    log = tmp_path / "run" / "log.txt"
    process = subprocess.Popen(
        words(data, tmp_path / "run", "OPTIM.MAX_EPOCH", "30"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 120
    while not log.exists() or "epoch [" not in log.read_text("utf-8"):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    process.stdout.close()
    assert process.wait(120) == 0, process.stderr.read()
    process.stderr.close()
    complete(tmp_path / "run")


def test_programs_that_only_print_end_with_their_reader():
    script = f"set -o pipefail; {sys.executable} train.py --list | head -1"
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "trainers:\n", "")


@pytest.fixture
def locale(tmp_path):
    """``locale(name)``: the environment of a locale; the test is skipped if it cannot be made."""

    def environment(name):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
        if name == "Latin-1":
            place = tmp_path / "locales" / "en_US.ISO-8859-1"
            place.parent.mkdir()
            command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(place)]
            try:
                subprocess.run(command, capture_output=True, check=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("localedef cannot make a Latin-1 locale here")
            env["LOCPATH"] = str(place.parent)
        return {**env, **LOCALES[name]}

    return environment


@pytest.mark.parametrize("name", [slow(name) if name != "ASCII" else name for name in LOCALES])
def test_names_are_right_in_every_locale(data, tmp_path, locale, name):
    env, more = locale(name), ("DATASET.TASK_NAMES", f"('{TASK}',)")

    def call(command):
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode("utf-8")

    shown = call([*words(data, tmp_path / "run", *more), "--show-prompts"])
    call(words(data, tmp_path / "run" / "seed1", *more))
    table = call([sys.executable, "parse_test_res.py", str(tmp_path / "run")])
    if name == "ASCII output":
        assert ascii(FLOWER)[1:-1] in shown and ascii(TASK)[1:-1] in table
    else:
        assert FLOWER in shown and TASK in table
    record = json.loads((tmp_path / "run" / "seed1" / "results.json").read_text("utf-8"))
    assert record["tasks"][0]["name"] == TASK
    assert TASK in complete(tmp_path / "run" / "seed1")


def test_home_in_every_path(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, content in {
        "base.yaml": "OPTIM: {MAX_EPOCH: 1}\n",
        "method.yaml": "_BASE_: ~/base.yaml\n",
        "data.yaml": "DATASET: {NAME: ImageFolder}\n",
    }.items():
        (tmp_path / name).write_text(content)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def call(program, *argv):
        capsys.readouterr()
        code = program.command(argv)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    call(
        *(train, *RUN[1:], "--config-file", "~/method.yaml"),
        *("--dataset-config-file", "~/data.yaml"),
        *("--root", "~/data", "--output-dir", "~/run/seed1"),
        *("FEATURES.MODE", "test", "FEATURES.DIR", "~/features"),
    )
    complete(tmp_path / "run" / "seed1")
    assert list((tmp_path / "features").iterdir())
    flags = ("--eval-only", "--model-dir", "~/run/seed1", "--dataset-config-file", "~/data.yaml")
    call(train, *RUN[1:], *flags, "OUTPUT_DIR", "~/tested", "DATASET.ROOT", "~/data")
    assert (tmp_path / "tested" / "results.json").exists()
    assert "n = 1" in call(parse_test_res, "~/run", "--out", "~/table.txt")
    assert (tmp_path / "table.txt").exists()
    assert not [path for path in here.rglob("*") if path.name == "~"]
    demo = (ROOT / "configs/sweeps/demo.yaml").read_text("utf-8")
    lines = [
        f"output: ~/out{i}" if s.startswith("output:") else s
        for i, s in enumerate(demo.splitlines())
    ]
    (tmp_path / "grid.yaml").write_text("\n".join(lines))
    assert f"below {tmp_path}/out" in call(sweep, "~/grid.yaml", "--dry-run")
