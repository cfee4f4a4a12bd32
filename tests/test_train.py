"""The command line, and whole runs through it: train, kill, go on, evaluate, tabulate."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import parse_test_res
import train
from clip import list_backbones
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from tests.conftest import toy_args

ROOT = Path(train.__file__).parent
EPOCH = re.compile(r"epoch \[(\d+)/\d+\]\[(\d+)/(\d+)\]")


# ---------------------------------------------------------------- in this process


def test_help_shows_every_flag_of_the_family(capsys):
    with pytest.raises(SystemExit) as exit_:
        train.parse_args(["--help"])
    text = capsys.readouterr().out
    flags = (
        "root output-dir resume seed source-domains target-domains transforms config-file "
        "dataset-config-file trainer backbone head eval-only model-dir load-epoch no-train "
        "old-data-path new-data-path protocol list dry-run"
    )
    assert exit_.value.code == 0
    assert not [flag for flag in flags.split() if f"--{flag}" not in text]
    assert "exit codes: 0 done" in text


def test_list_names_everything_with_a_line(capsys):
    assert train.command(["--list"]) == 0
    text = capsys.readouterr().out
    for name in (*TRAINER_REGISTRY.registered_names(), *DATASET_REGISTRY.registered_names()):
        assert re.search(rf"^  {re.escape(name)} +\S", text, re.MULTILINE), f"{name} has no line"
    assert "ViT-L/14@336px" in text and "--list backbones" in text
    train.command(["--list", "backbones"])
    text = " ".join(capsys.readouterr().out.split())
    # OpenAI's weights stand there under OpenAI's names
    names = [name for name in list_backbones() if not name.endswith("/openai")]
    assert all(name in text for name in names) and "CoOp" not in text


def test_dry_run_builds_shows_and_leaves_nothing(toy, tmp_path, capsys):
    args = toy_args("MTCoOp", output=tmp_path / "run", flags=("--dry-run",))
    train.main(args)
    text = capsys.readouterr().out
    assert "  meta.proj (64, 1024)" in text and "  tasks.ctx (16, 64)" in text
    assert "4 steps per epoch, 2 epochs, one step per batch" in text  # 36 images, batches of 8
    assert not (tmp_path / "run").exists()


def test_later_sources_win(tmp_path):
    method, dataset = tmp_path / "m.yaml", tmp_path / "d.yaml"
    dataset.write_text("DATASET: {NAME: Digits7, NUM_SHOTS: 1}\nOPTIM: {LR: 0.1}\n")
    method.write_text("OPTIM: {LR: 0.2, MAX_EPOCH: 3}\nSEED: 5\n")
    words = ["--trainer", "CoOp", "--config-file", method, "--dataset-config-file", dataset]
    words += ["--seed", "0", "--protocol", "base_to_new", "OPTIM.MAX_EPOCH", "7"]
    cfg = train.setup_cfg(train.parse_args([*map(str, words)]))
    assert (cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH, cfg.DATASET.NUM_SHOTS) == (0.2, 7, 1)
    assert cfg.SEED == 0  # seed 0 is a seed
    assert (cfg.PROTOCOL, cfg.DATASET.SUBSAMPLE_CLASSES) == ("base_to_new", "base")
    assert set(cfg.TRAINER) == {"NAME", "COOP"}


def test_the_folder_of_a_run_without_output_dir():
    files = [
        *("--config-file", "configs/trainers/CoOp/tiny_ep50.yaml"),
        *("--dataset-config-file", "configs/datasets/digits7.yaml"),
    ]

    def folder(*words):
        args = train.parse_args(["--trainer", "CoOp", *files, *words])
        return train.setup_cfg(args).OUTPUT_DIR

    assert folder("--seed", "2", "DATASET.NUM_SHOTS", "16") == (
        "output/digits7/CoOp/tiny_ep50_16shots/seed2"
    )
    assert folder("--backbone", "ViT-B/16", "DATASET.SUBSAMPLE_TASKS", "task1") == (
        "output/digits7/CoOp/tiny_ep50_ViT-B-16_all_images_task1/drawn_seed"
    )
    half = ("--protocol", "base_to_new", "DATASET.SUBSAMPLE_CLASSES", "new")
    assert folder(*half, "--seed", "1", "--eval-only", "DATASET.NUM_SHOTS", "16") == (
        "output/base_to_new/digits7/CoOp/tiny_ep50_16shots_new_evaluation/seed1"
    )
    load = ("--eval-only", "--model-dir")
    first, second, other = (
        folder(*load, f"{run}/seed{seed}", "--seed", seed)
        for run, seed in (("a/run", "1"), ("a/run", "2"), ("b/run", "1"))
    )
    assert first == second.replace("seed2", "seed1") != other
    assert other.startswith("output/digits7/CoOp/tiny_ep50_all_images_evaluation_of_run_")
    assert folder(*load, "a/run/seed1", "--load-epoch", "5", "--seed", "1") not in (first, other)
    many = "task" + "+".join(map(str, range(200)))
    assert all(len(part) < 255 for part in folder("DATASET.SUBSAMPLE_TASKS", many).split("/"))
    assert folder("--output-dir", "output") == "output" == folder("OUTPUT_DIR", "output")
    assert folder("--output-dir", "./output") == "./output"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no trainer chosen: give one with --trainer"),
        (["--trainer", "COOP"], r"no trainer named 'COOP'; did you mean CoOp\?"),
        (["--trainer", "CoOp", "--protocl", "x"], r"no flag named '--protocl'; did you mean"),
        (["--trainer", "CoOp", "--protocol", "fewshot"], r"did you mean few_shot\?"),
        (["--trainer", "CoOp", "OPTIM.LRR", "1"], r"did you mean OPTIM.LR\?"),
        (["--trainer", "CoOp", "OPTIM.LR"], "'OPTIM.LR' has no value"),
        (["--trainer", "CoOp", "OPTIM.LR", "fast"], "OPTIM.LR takes a number"),
        (["--trainer", "CoOp", "--seed", "one"], "--seed: invalid int value: 'one'"),
    ],
)
def test_mistakes_are_answered(words, message):
    with pytest.raises(UserError, match=message):
        train.setup_cfg(train.parse_args(words))


def test_a_drawn_seed_is_recorded_and_kept(run, tmp_path):
    first = run("CoOp", flags=("--seed", "-1"))
    seed = first["protocol"]["seed"]
    assert 0 <= seed < 2**31
    path = tmp_path / "run" / "results.json"
    path.write_text(json.dumps({**first, "status": "interrupted"}))
    assert run("CoOp", flags=("--seed", "-1"))["protocol"]["seed"] == seed
    again = run("CoOp", output=tmp_path / "again", flags=("--seed", str(seed)))
    assert again["tasks"] == first["tasks"]


def test_a_complete_run_is_left_alone(run, tmp_path):
    content = run("MTCoOp")
    paths = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != ".lock"]
    files = {p: p.stat().st_mtime_ns for p in paths}
    assert run("MTCoOp") == content
    assert files == {p: p.stat().st_mtime_ns for p in files}
    with pytest.raises(UserError, match=r"another configuration \(complete\): OPTIM.LR was 0.002"):
        run("MTCoOp", "OPTIM.LR", 0.1)


@pytest.mark.parametrize("method", ["CoOp", "MTCoOp"])
def test_evaluation_of_a_trained_run(run, tmp_path, method):
    trained = run(method)
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
    tested = run(method, output=tmp_path / "tested", flags=flags)
    assert tested["tasks"] == trained["tasks"] and tested["suite"] == trained["suite"]


def test_the_run_directory(run, tmp_path):
    run("MTCoOp")
    folder = tmp_path / "run"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("tensorboard/events.out.tfevents")}
    assert events
    assert found - events == {
        *("config.yaml", "tasks.json", "results.json", "log.txt", ".lock"),
        *("resume.pt", "resume.previous.pt", "predictions.npz"),
        *("prompt_learner/model.pth.tar-2", "prompt_learner/checkpoint"),
    }
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["TRAINER"]["NAME"] == "MTCoOp" and "OUTPUT_DIR" not in config


# ---------------------------------------------------------------- as its user runs it


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """``command(words, ...)`` starts train.py on Digits7 with an untrained CLIP."""
    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}

    def start(*words):
        argv = [sys.executable, ROOT / "train.py", *words]
        return subprocess.Popen(
            [*map(str, argv)],
            cwd=cache,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def digits(trainer, output, *more):
    preset = ROOT / "configs" / "trainers" / trainer / "tiny_ep50.yaml"
    return (
        *("--trainer", trainer, "--config-file", preset, "--output-dir", output),
        *("--dataset-config-file", ROOT / "configs/datasets/digits7.yaml", "--seed", 0),
        *("--backbone", "tiny/random", "DATASET.NUM_SHOTS", 2, "OPTIM.MAX_EPOCH", 30),
        *("TRAIN.PRINT_FREQ", 1000, "TRAIN.RESUME_SECONDS", 0, *more),
    )


def kill_after(process, log, epochs):
    """SIGKILL once the log tells of so many epochs."""
    deadline = time.monotonic() + 120
    while not log.exists() or len(EPOCH.findall(log.read_text())) < epochs:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def called(capsys, program, *words):
    """What a program prints when it is called in this process, and succeeds."""
    capsys.readouterr()
    code = program.command([*map(str, words)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


@pytest.mark.parametrize(("trainer", "epochs"), [("MTCoOp", 12), ("CoOp", 100)])
def test_killed_and_started_again(command, tmp_path, capsys, trainer, epochs):
    """A kill costs at most one epoch, and the end is that of the uninterrupted run."""
    whole, cut = tmp_path / "whole" / "seed0", tmp_path / "cut" / "seed0"
    called(capsys, train, *digits(trainer, whole))
    kill_after(command(*digits(trainer, cut)), cut / "log.txt", epochs)
    before = EPOCH.findall((cut / "log.txt").read_text())
    assert json.loads((cut / "results.json").read_text())["status"] == "running"
    parse_test_res.command([str(cut.parent)])
    assert re.search(r"seed0.*(running|not complete|unfinished)", "".join(capsys.readouterr()))

    called(capsys, train, *digits(trainer, cut))
    lines = EPOCH.findall((cut / "log.txt").read_text())
    total = 30 if trainer == "MTCoOp" else 7 * 30
    assert total <= len(lines) <= total + 1  # no epoch is repeated but the one that was cut
    assert lines[: len(before)] == before
    a, b = (json.loads((folder / "results.json").read_text()) for folder in (whole, cut))
    assert (a.pop("run")["resumed"], b.pop("run")["resumed"]) == (False, True)
    assert a == b and a["status"] == "complete"

    assert "complete: nothing to do" in called(capsys, train, *digits(trainer, cut))
    flags = ("--eval-only", "--model-dir", cut, "--load-epoch", 30)
    called(capsys, train, *flags, *digits(trainer, tmp_path / "tested"))
    tested = json.loads((tmp_path / "tested" / "results.json").read_text())
    assert tested["tasks"] == a["tasks"]
    table = called(capsys, parse_test_res, tmp_path / "cut")
    for group, value in a["suite"]["groups"].items():
        assert re.search(rf"{re.escape(group)}.*{value:.2f}%", table), table


def test_a_mistake_is_one_line_and_exit_code_2(command, tmp_path):
    process = command(*digits("MTCoOp", tmp_path / "run", "OPTIM.LR", "fast"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: OPTIM.LR takes a number") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_a_run_that_goes_on(command, tmp_path, capsys):
    words = digits("MTCoOp", tmp_path / "run")
    process = command(*words)
    log, deadline = tmp_path / "run" / "log.txt", time.monotonic() + 120
    while not log.exists() or not EPOCH.search(log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "interrupted"
    called(capsys, train, *words)


def test_an_unforeseen_error_is_named(monkeypatch, capsys):
    def fail(args):
        raise KeyError("feat")

    monkeypatch.setattr(train, "listing", fail)
    assert train.command(["--list"]) == 1
    assert capsys.readouterr().err == "error: KeyError: 'feat' (--debug shows where)\n"


def test_keys_of_questions_are_in_no_other_run():
    """A run's hash is of its configuration."""
    words = ["--trainer", "CoOp", "--backbone", "tiny/random", "DATASET.NAME"]
    digits, asked = (
        train.setup_cfg(train.parse_args([*words, name])) for name in ("Digits7", "DigitQuestions")
    )
    assert "QUESTIONS" not in digits.DATASET
    assert asked.DATASET.QUESTIONS.CANDIDATES == 3000
