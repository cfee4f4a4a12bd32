"""The checks for a GPU find what is wrong, end in time, and run in miniature on a CPU."""

import json
import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import (
    _device_checks,
    _profile,
    _speed,
    _workers,
    gpu,
    gpu_check,
    methods,
)
from benchmarks._device_cases import every_case
from benchmarks._progress import Report, compare_until
from dassl.engine import TRAINER_REGISTRY

ROOT = Path(__file__).parents[2]


@pytest.fixture
def untrained():
    """``untrained(name)``: a case in miniature on the tiny backbone with random weights."""

    def find(name, *checks):
        case = next(case for case in every_case(small=True) if case.name == name)
        names = {"tiny": "tiny/random", "tiny-vit": "tiny-vit/random"}
        opts = [names.get(word, word) for word in case.opts]
        return replace(case, opts=(*opts, "USE_CUDA", "False"), checks=checks, exact=False)

    return find


def test_every_method_is_a_case():
    for small in (True, False):
        cases = every_case(small)
        assert {case.trainer for case in cases} == set(TRAINER_REGISTRY.registered_names())
        assert len({case.name for case in cases}) == len(cases)
        assert set().union(*(case.checks for case in cases)) <= set(_device_checks.CHECKS)


SLOW_CASES = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("CoOp, questions", "MaPLe", "ZeroshotCLIP")
]


@pytest.mark.parametrize("name", ["MTCoOp", "ProtoNet", *SLOW_CASES])
def test_all_checks_of_a_case(untrained, tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = list(_device_checks.check_case(untrained(name), tmp_path, tmp_path / "features"))
    assert [row["check"] for row in rows] == list(_device_checks.CHECKS)
    assert all(row["ok"] for row in rows), rows


def test_what_is_wrong_is_found(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    case, trained = untrained("MTCoOp", "fp32", "stored features", "checkpoint"), []
    whole = _device_checks.Checks._train

    def train(self, name, *opts, **how):
        trained.append(name)
        if name == "stored":
            raise RuntimeError("first line\nlast line")
        if name == "fp32":
            opts = (*opts, "OPTIM.LR", "1e-30")
        return whole(self, name, *opts, **how)

    monkeypatch.setattr(_device_checks.Checks, "_train", train)
    rows = list(_device_checks.check_case(case, tmp_path, tmp_path / "features"))
    assert [row["ok"] for row in rows] == [False, False, True], rows
    assert "nothing was learned between the first and the last epoch" in rows[0]["note"]
    assert rows[1]["note"] == "RuntimeError: last line"
    assert "Traceback" in rows[1]["traceback"]
    assert trained == ["fp32", "stored", "evaluated"]


def test_learned_tensors_and_accuracies_are_compared(untrained, tmp_path):
    checks = _device_checks.Checks(untrained("CoOp"), tmp_path, tmp_path)
    checks.case = replace(checks.case, exact=True)
    for run, values in {"fp32": (0.0, 1.0), "near": (0.0, 1.005), "far": (0.0, 1.02)}.items():
        folder = tmp_path / run / "prompt_learner"
        folder.mkdir(parents=True)
        for epoch, value in enumerate(values, 1):
            state = {"state_dict": {"ctx": torch.tensor([3.0, value])}}
            torch.save(state, folder / f"model.pth.tar-{epoch}")
    record = {"tasks": [{"value": 50.0, "total": 100}]}
    (tmp_path / "fp32" / "results.json").write_text(json.dumps(record))
    assert checks._like_fp32("near", record, 1e-2).startswith("tensors 5.0e-03 of their way apart")
    with pytest.raises(_device_checks.CheckError, match=r"2.0e-02 of their way apart, over 0.01"):
        checks._like_fp32("far", record, 1e-2)
    other = {"tasks": [{"value": 52.0, "total": 100}]}
    with pytest.raises(_device_checks.CheckError, match=r"accuracy is 2\.0 of 100 images apart"):
        checks._like_fp32("near", other, 1e-2)
    checks.case = replace(checks.case, exact=False)
    assert checks._like_accuracies(other) == "accuracy 2.0 of 100 images apart"
    with pytest.raises(_device_checks.CheckError, match=r"learned tensors \['a'\], expected \[\]"):
        _device_checks.distance({"a": torch.ones(1)}, {})


STUB = """#!/bin/sh
for word; do case $word in *.jsonl) results=$word ;; esac; last=$word; done
[ "$last" = --small ] || exit 9
echo '{"case": "a", "check": "x", "ok": true, "seconds": 1, "note": ""}' >>"$results"
echo "dies of it" >&2
case "$*" in *slow*) sleep 30 ;; *bad*) exit 3 ;; esac
"""


def test_processes_that_die_or_take_too_long(tmp_path, monkeypatch):
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    monkeypatch.setattr(_workers.sys, "executable", str(stub))
    monkeypatch.setattr(_workers, "PAUSE", 0.02)
    names = ["good", "bad", "slow", "never"]
    rows = list(_workers.shared_out(names, tmp_path, 1.0, at_once=1, each=1, small=True))
    said = [(row["ok"], row["note"]) for row in rows]
    assert said[:3] == [(True, ""), (True, ""), (False, "ended with exit code 3: dies of it")]
    assert said[3:5] == [(True, ""), (False, "cut off, no time left: dies of it")]
    assert (rows[5]["case"], said[5]) == ("never", (False, "not begun: no time left"))


def test_the_table_of_checks(tmp_path):
    good = {"case": "A", "check": "fp32", "ok": True, "seconds": 1.0, "note": "a|b"}
    rows = [good, _workers.failed("B", "amp", "an error", "Traceback")]
    text = gpu_check.save_checks(Report(tmp_path, "checks", "Title"), rows)
    assert text.startswith("2 checks, 1 failed.\n\n| method | check |  | s |  |\n")
    assert "| B | amp | FAILED | 0.0 | an error |" in text
    assert "| A | ok |  |\n| B |  | FAILED |\n" in text
    whole = (tmp_path / "checks.md").read_text()
    assert whole.startswith("## Title\n\n2 checks") and r"| A | fp32 | ok | 1.0 | a\|b |" in whole
    assert json.loads((tmp_path / "checks.json").read_text()) == rows


def test_rows_until_the_deadline(tmp_path, monkeypatch):
    clock = iter([0, 0, 4, 4, 5, 5, 8, 8, 9])
    monkeypatch.setattr(_speed, "elapsed", lambda: next(clock))
    fast = {"what": "x", "naive": 0.2, "ours": 0.1, "ratio": 2.0, "notes": "n"}
    unfit = {**fast, "naive": math.nan, "ratio": math.nan}

    def fails():
        raise ValueError("no\nreason")

    work = {"a": lambda: [fast], "b": lambda: [unfit], "c": fails, "d": lambda: [fast]}
    assert not _speed.measure_until(Report(tmp_path, "speed", "T"), 10, work)
    lines = (tmp_path / "speed.md").read_text().splitlines()[-4:]
    assert lines[0] == "| x | 200.0 | 100.00 | 2.0x | n |"
    assert lines[1] == "| x | out of memory | 100.00 |  | n |"
    assert lines[2] == "| c |  |  |  | FAILED: ValueError: reason |"
    assert lines[3] == "| d |  |  |  | left out: no time left |"
    assert json.loads((tmp_path / "speed.json").read_text())[1]["naive"] is None


def test_what_gives_rows_in_miniature():
    jobs = _speed.jobs(small=True)
    names = ("NATA", "CSTA", "CoOp-MT", *gpu.ONE_TASK, "together")
    assert list(jobs) == [*(f"tiny/random {n}" for n in names), *methods.chosen(small=True)]
    for row in jobs["tiny/random CoCoOp"]():
        assert row["ratio"] > 0 and row["notes"].endswith("5 classes, batch 4")


def test_intervals_that_overlap():
    assert _profile.busy([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4
    assert _profile.busy([]) == 0


def test_a_profile_in_miniature(tmp_path):
    assert _profile.main([str(tmp_path), "60", "--small"]) == 0
    found = json.loads((tmp_path / "profile.json").read_text())
    assert found["wall_ms"] > 0 and found["operators"] > 100
    assert len(found["cpu"]) == _profile.TOP
    assert "| kernel launches |" in (tmp_path / "profile.md").read_text()


def test_the_command_line(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        gpu_check.main(["--only", "checks,speeds"])
    known = ", ".join(gpu_check.SHARES)
    assert f"no part named 'speeds'; known: {known}" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert "there is no GPU that PyTorch can use" in capsys.readouterr().err


def test_comparisons_until_the_deadline(tmp_path, monkeypatch):
    clock = iter([0, 0, 4, 8])
    monkeypatch.setattr("benchmarks._progress.elapsed", lambda: next(clock))
    monkeypatch.setattr("benchmarks._progress.say", lambda text: None)

    def fails():
        raise ValueError("no reason")

    work = {"a": lambda: {"what": "x", "ok": True}, "b": fails, "c": dict}

    def cells(row):
        return row["what"], str(row["ok"])

    assert not compare_until(Report(tmp_path, "p", "T"), 5, work, ("what", "ok"), cells)
    lines = (tmp_path / "p.md").read_text().splitlines()[-3:]
    assert lines[0] == "| x | True |"
    assert lines[1] == "| b: ValueError: no reason | False |"
    assert lines[2] == "| c: left out, no time left | False |"
    assert len(json.loads((tmp_path / "p.json").read_text())) == 3


@pytest.mark.slow
def test_the_script_in_miniature(tmp_path):
    command = [ROOT / "benchmarks" / "gpu_check.sh", "--small", "--case", "ProtoNet", tmp_path]
    environment = {**os.environ, "USE_WHEELS": "0", "PYTHON": _workers.sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {f"{part}.{end}" for part in gpu_check.SHARES for end in ("md", "json")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert "all went well" in done.stdout
