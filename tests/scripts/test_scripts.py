"""The published commands: what they give to train.py, and what comes of it, under plain sh."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
NATA = ("0", "False", "4", "False", "16", "False", "lin", "1")
CSTS = ("4", "True", "4", "True", "16", "True", "lin", "1")
NATA_NAME = "cnctx0_ccscFalse_tnctx4_tcscFalse_nctx16_cscFalse_typelin_ratio1"
CSTS_NAME = "cnctx4_ccscTrue_tnctx4_tcscTrue_nctx16_cscTrue_typelin_ratio1"
# Stands for Python: writes down its arguments, one a line, and fails for the seed in FAIL.
RECORDER = """#!/bin/sh
for word in "$@"; do
    printf '%s\\n' "$word"
done >>"$RECORD"
echo "--" >>"$RECORD"
case " $* " in *" --seed ${FAIL%:*} "*) exit "${FAIL#*:}" ;; esac
"""


@pytest.fixture
def script(tmp_path):
    """``script(name, *arguments, FAIL=...)``: exit code, argument lists of train.py, stderr."""
    recorder = tmp_path / "python"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)

    def go(name, *arguments, cwd=SCRIPTS, shell="sh", **environment):
        record = tmp_path / "record"
        record.write_text("")
        env = {k: v for k, v in os.environ.items() if k not in ("SEEDS", "YOUR_DATA_PATH", "SHOTS")}
        env |= {"PYTHON": str(recorder), "RECORD": str(record), "FAIL": "none:0", **environment}
        command = [shell, str(Path(os.path.relpath(SCRIPTS, cwd)) / name), *arguments]
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
        calls = [part.splitlines() for part in record.read_text().split("--\n")[:-1]]
        assert all(call[0] == "train.py" for call in calls)
        return done.returncode, [call[1:] for call in calls], done.stderr

    return go


def config(arguments):
    """What train.py makes of the arguments, and the arguments as it reads them."""
    args = train.parse_args(arguments)
    return train.setup_cfg(args), args


SOFTCPT = [
    ("main_mtcoop.sh", (), "output/digits7/MTCoOp/{}_loss/seed{}"),
    ("main_mtcoop_cls_sample.sh", ("0.1",), "output/digits7/MTCoOp/{}_csr0.1/seed{}"),
    ("main_mtcoop_base2new_train.sh", (), "output/base2new/digits7/MTCoOp/{}_loss/base/seed{}"),
    ("main_mtcoop_base2new_test.sh", (), "output/base2new/digits7/MTCoOp/{}_loss/new/seed{}"),
]


@pytest.mark.parametrize(("name", "more", "folder"), SOFTCPT)
def test_softcpt(script, name, more, folder):
    code, calls, _ = script(name, "digits7", "tiny_ep50", "16", *CSTS, *more)
    assert code == 0
    for seed, call in zip((1, 2, 3), calls, strict=True):
        cfg, args = config(call)
        assert cfg.TRAINER.NAME == "MTCoOp" and seed == cfg.SEED and cfg.DATASET.NAME == "Digits7"
        assert folder.format(f"tiny_ep50_16shots/{CSTS_NAME}", seed) == cfg.OUTPUT_DIR
        options = cfg.TRAINER.MTCOOP
        assert (options.CLASS_N_CTX, options.TASK_N_CTX, options.N_CTX) == (4, 4, 16)
        assert options.CLASS_CSC and options.TASK_CSC and options.CSC
        assert (options.PG_TYPE, options.PG_RATIO) == ("lin", 1)
        assert cfg.DATASET.NUM_SHOTS == 16 and cfg.OPTIM.MAX_EPOCH == 50
        rate = 0.1 if "cls_sample" in name else 0
        assert rate == options.CLS_SAMPLE_RATE
        assert args.eval_only == ("test" in name)
        if "base2new" in name:
            assert (cfg.PROTOCOL, cfg.TEST.METRIC) == ("base_to_new", "per_task")
            wanted = "new" if "test" in name else "base"
            assert wanted == cfg.DATASET.SUBSAMPLE_CLASSES
        if "test" in name:
            assert args.model_dir == cfg.OUTPUT_DIR.replace("/new/", "/base/")
            assert args.load_epoch is None  # the model that the training ended with


@pytest.mark.parametrize(("csc", "tsc"), [("False", "False"), ("False", "True"), ("True", "False")])
def test_hard_sharing(script, csc, tsc):
    code, calls, _ = script("main_mtcoop_hard.sh", "digits7", "tiny_ep50", "4", "16", csc, tsc)
    assert code == 0 and len(calls) == 3
    cfg, _ = config(calls[1])
    assert cfg.TRAINER.NAME == "MTCoOpHard" and cfg.TRAINER.MTCOOPH.N_CTX == 16
    assert (str(cfg.TRAINER.MTCOOPH.CSC), str(cfg.TRAINER.MTCOOPH.TSC)) == (csc, tsc)
    below = f"tiny_ep50_4shots/nctx16_csc{csc}_tsc{tsc}/seed2"
    assert f"output/digits7/MTCoOpHard/{below}" == cfg.OUTPUT_DIR


@pytest.mark.parametrize(("given", "tasks"), [("3", "task3"), ("task3", "task3"), ("all", "all")])
def test_zeroshot(script, given, tasks):
    code, (call,), _ = script("zeroshot.sh", "digits7", "tiny", given)
    cfg, args = config(call)
    assert code == 0 and args.eval_only and not args.model_dir
    assert cfg.TRAINER.NAME == "ZeroshotCLIP" and tasks == cfg.DATASET.SUBSAMPLE_TASKS
    assert f"output/ZeroshotCLIP/tiny/digits7-{given}" == cfg.OUTPUT_DIR


@pytest.mark.parametrize("half", ["base", "new"])
def test_zeroshot_base2new(script, half):
    code, (call,), _ = script("zeroshot_base2new.sh", "digits7", "tiny", "0", half)
    cfg, _ = config(call)
    assert code == 0 and half == cfg.DATASET.SUBSAMPLE_CLASSES and cfg.PROTOCOL == "base_to_new"
    assert f"output/base2new/ZeroshotCLIP/tiny/{half}/digits7-0" == cfg.OUTPUT_DIR


def test_linear_probe(script):
    code, calls, _ = script("linearprob.sh", "digits7", "rn50", "1", SEEDS="1 2", SHOTS="1 16")
    assert code == 0
    found = [call[call.index("--output-dir") + 1] for call in calls]
    assert found == [
        f"output/lpclip/digits7/rn50/{task}/{shots}shots/seed{seed}"
        for task in (0, 1)
        for shots in (1, 16)
        for seed in (1, 2)
    ]
    args = train.parse_args(calls[-1])
    assert args.trainer == "LinearProbe" and (ROOT / args.config_file).is_file()
    assert args.opts == ["DATASET.SUBSAMPLE_TASKS", "task1", "DATASET.NUM_SHOTS", "16"]


def test_linear_probes_of_a_task_that_is_no_number(script):
    code, calls, err = script("linearprob.sh", "digits7", "rn50", "task3")
    assert code == 2 and not calls and "MAX_TASK_IDX" in err and "task3" in err


def test_what_follows_goes_on_to_train(script):
    more = ["--backbone", "tiny/random", "OPTIM.MAX_EPOCH", "2", "TRAINER.MTCOOP.N_CTX", "8"]
    more += ["--transforms", "normalize"]
    _, calls, _ = script("main_mtcoop.sh", "digits7", "tiny_ep50", "1", *NATA, *more)
    cfg, _ = config(calls[0])
    assert cfg.MODEL.BACKBONE.NAME == "tiny/random" and cfg.OPTIM.MAX_EPOCH == 2
    assert cfg.TRAINER.MTCOOP.N_CTX == 8  # later words win
    assert NATA_NAME in cfg.OUTPUT_DIR


def test_seeds_and_data_from_the_environment(script, tmp_path):
    words = ("main_mtcoop_hard.sh", "digits7", "tiny_ep50", "1", "16", "False", "False")
    _, calls, _ = script(*words, SEEDS="7", YOUR_DATA_PATH=f"{tmp_path}/my data")
    (call,) = calls
    cfg, _ = config(call)
    assert f"{tmp_path}/my data" == cfg.DATASET.ROOT and cfg.SEED == 7
    _, calls, _ = script(*words)
    assert all("--root" not in call for call in calls)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_from_the_repository_too(script, shell):
    words = ("digits7", "tiny_ep50", "1", "16", "False", "False")
    here = script("main_mtcoop_hard.sh", *words, cwd=ROOT, shell=shell)
    assert here == script("main_mtcoop_hard.sh", *words)


@pytest.mark.parametrize("name", sorted(p.name for p in SCRIPTS.glob("[!_]*.sh")))
def test_missing_arguments(script, name):
    if name == "set_env.sh":
        assert script(name) == (0, [], "")
        return
    code, calls, err = script(name, "digits7")
    assert code == 2 and calls == []
    assert err.startswith("error: no ") and f"usage: sh {name} DATASET " in err
    assert (SCRIPTS / name).stat().st_mode & 0o111


@pytest.mark.parametrize("name", ["main_mtcoop.sh", "main_mtcoop_base2new_test.sh"])
def test_a_failing_seed_leaves_the_others_their_turn(script, name):
    words = (name, "digits7", "tiny_ep50", "1", *NATA)
    code, calls, _ = script(*words, FAIL="2:1")
    assert code == 1 and len(calls) == 3
    code, calls, _ = script(*words, FAIL="1:2")
    assert code == 2 and len(calls) == 3


def test_an_interruption_ends_the_script(script):
    words = ("digits7", "tiny_ep50", "1", *NATA)
    code, calls, _ = script("main_mtcoop.sh", *words, FAIL="2:130")
    assert code == 130 and len(calls) == 2


# ---------------------------------------------------------------- with train.py itself

TINY = ("--backbone", "tiny/random", "FEATURES.MODE", "off", "DATALOADER.TRAIN_X.BATCH_SIZE", "16")


@pytest.fixture
def clone(tmp_path):
    """A fresh clone: the repository's files, its output in a folder of its own."""
    here = tmp_path / "clone"
    here.mkdir()
    for path in ROOT.iterdir():
        name = path.name
        if name.startswith(".") or name == "output":
            continue
        (here / name).symlink_to(ROOT / name)
    (here / "scripts").unlink()
    (here / "scripts").mkdir()
    for path in SCRIPTS.iterdir():
        (here / "scripts" / path.name).write_text(path.read_text())
    return here


def start(clone, name, *arguments, seeds="1"):
    env = {**os.environ, "PYTHON": sys.executable, "SEEDS": seeds, "YOUR_DATA_PATH": ""}
    return subprocess.Popen(
        ["sh", name, *arguments],
        cwd=clone / "scripts",
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def records(clone):
    return {
        str(path.parent.relative_to(clone)): json.loads(path.read_text())
        for path in sorted(clone.glob("output/**/results.json"))
    }


@pytest.mark.slow
def test_twice_and_after_a_kill(clone):
    often = ("OPTIM.MAX_EPOCH", "6", "TRAIN.RESUME_SECONDS", "0")
    words = ("digits7", "tiny_ep50", "1", *NATA, *TINY, *often)
    process = start(clone, "main_mtcoop.sh", *words)
    while not list(clone.glob("output/**/seed1/resume.pt")):
        assert process.poll() is None, finish(process)
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    assert [record["status"] for record in records(clone).values()] == ["running"]
    code, out, err = finish(start(clone, "main_mtcoop.sh", *words))
    assert code == 0, err
    assert "Resuming after epoch" in out
    done = records(clone)
    assert [record["status"] for record in done.values()] == ["complete"]
    code, out, err = finish(start(clone, "main_mtcoop.sh", *words))
    assert code == 0 and "complete: nothing to do" in out
    assert records(clone) == done  # left alone


@pytest.mark.slow
def test_base_to_new_and_zero_shot(clone):
    words = ("digits7", "tiny_ep50", "1", *NATA, *TINY, "OPTIM.MAX_EPOCH", "2")
    code, _, err = finish(start(clone, "main_mtcoop_base2new_test.sh", *words))
    assert code == 2 and "error: there is no folder" in err and "--model-dir" in err
    sizes = ("--backbone", "tiny/random", "FEATURES.MODE", "off")
    zero_shot = start(clone, "zeroshot.sh", "digits7", "tiny", "0", *sizes)  # meanwhile
    code, _, err = finish(start(clone, "main_mtcoop_base2new_train.sh", *words))
    assert code == 0, err
    code, out, err = finish(start(clone, "main_mtcoop_base2new_test.sh", *words))
    assert code == 0, err
    assert "model.pth.tar-2 (epoch 2)" in out
    code, _, err = finish(zero_shot)
    assert code == 0, err
    classes = [record["protocol"]["classes"] for record in records(clone).values()]
    assert classes == ["all", "base", "new"]
