"""Help, lists and mistakes of the command line are answered without importing torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "numpy", "open_clip", "scipy", "sklearn", "matplotlib", "pandas")
COOP = ("train.py", "--trainer", "CoOp")
CASES = {  # exit code, arguments, a part of the output
    "train help": (0, ("train.py", "--help"), "--dataset-config-file"),
    "list": (0, ("train.py", "--list"), "ViT-B/32"),
    "list backbones": (0, ("train.py", "--list", "backbones"), "ViT-B-16-SigLIP2/webli"),
    "list trainers": (0, ("train.py", "--list", "trainers"), "MTCoOp"),
    "unknown flag": (2, ("train.py", "--trainr", "CoOp"), "did you mean --trainer?"),
    "unknown trainer": (2, ("train.py", "--trainer", "COOP"), "did you mean CoOp?"),
    "unknown dataset": (2, (*COOP, "DATASET.NAME", "Digit7"), "did you mean Digits7?"),
    "unknown protocol": (2, (*COOP, "--protocol", "fewshot"), "did you mean few_shot?"),
    "unknown key": (2, (*COOP, "OPTIM.LRR", "1"), "did you mean OPTIM.LR?"),
    "missing file": (2, (*COOP, "--config-file", "gone.yaml"), "gone.yaml"),
    "sweep help": (0, ("sweep.py", "--help"), "--dry-run"),
    "sweep dry run": (0, ("sweep.py", "configs/sweeps/demo.yaml", "--dry-run"), "train.py"),
    "sweep missing file": (2, ("sweep.py", "gone.yaml"), "gone.yaml"),
    "export help": (0, ("export.py", "--help"), "--as"),
    "export unknown kind": (2, ("export.py", "run", "out", "--as", "onx"), "did you mean onnx?"),
    "predict help": (0, ("predict.py", "--help"), "--classes"),
    "predict missing run": (2, ("predict.py", "gone", "a.jpg"), "gone"),
    "predict unknown flag": (
        2,
        ("predict.py", "run", "a.jpg", "--tsk", "1"),
        "did you mean --task?",
    ),
    "parse help": (0, ("parse_test_res.py", "--help"), "--multi-exp"),
    "parse missing folder": (2, ("parse_test_res.py", "gone"), "gone"),
    "interpret help": (0, ("interpret_prompt.py", "--help"), "--load-epoch"),
    "interpret missing run": (2, ("interpret_prompt.py", "gone"), "gone"),
    "datasets help": (0, ("datasets", "--help"), "make-mini"),
    "datasets check help": (0, ("datasets", "check", "--help"), "--deep"),
    "datasets unknown command": (2, ("datasets", "chekc"), "check"),
    "features help": (0, ("clip.features", "--help"), "verify"),
    "features unknown flag": (2, ("clip.features", "info", "--dayz", "1"), "did you mean --days?"),
    "features info": (0, ("clip.features", "info", "--dir", "tests"), "0 parts"),
    "benchmarks help": (0, ("benchmarks", "--help"), "whole_sweep"),
    "benchmarks unknown suite": (2, ("benchmarks", "tekst"), "did you mean text?"),
}


@pytest.mark.parametrize("case", CASES)
def test_answered_without_heavy_imports(case):
    expected, (program, *argv), part = CASES[case]
    run = "run_path" if program.endswith(".py") else "run_module"
    code = (
        f"import runpy, sys; sys.argv[0] = {program!r}\n"
        f"try: runpy.{run}({program!r}, run_name='__main__')\n"
        "except SystemExit as end: code = end.code or 0\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "print('imported', heavy, 'exit', code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == f"imported [] exit {expected}", done.stderr
    assert part in done.stdout + done.stderr
