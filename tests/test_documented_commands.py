"""The commands of the documents: flags, files, names and configuration keys exist."""

import re
import shlex
from pathlib import Path

import pytest

import export
import parse_test_res
import predict
import sweep
import train
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS_EARLIER = re.compile(r"\b(SWEEP|RUN|DIR|FILE|TaskShift|my_groups\.yaml)\b|--group-by")
PROGRAMS = r"(?:train|sweep|predict|export|parse_test_res)\.py"
COMMAND = re.compile(rf"^    (?:python|torchrun [\w ]+) ({PROGRAMS}) (.*)$", re.M)


def documented():
    """(page, program, arguments) of every whole command that needs no earlier one."""
    for page in DOCUMENTS:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for program, words in COMMAND.findall(text):
            words = re.split(r"\s[#>]\s", f"{words} ")[0]
            if "..." not in words and not NEEDS_EARLIER.search(words):
                yield page.name, program, shlex.split(words)


COMMANDS = list(documented())


def of(program):
    found = [(page, words) for page, name, words in COMMANDS if name == program]
    return pytest.mark.parametrize("page, words", found, ids=[page for page, _ in found])


@of("train.py")
def test_train(page, words):
    args = train.parse_args(words)
    if not args.list:
        train.check_arguments(args)
        cfg = train.setup_cfg(args)
        assert cfg.TRAINER.NAME in TRAINER_REGISTRY and cfg.DATASET.NAME in DATASET_REGISTRY


@of("sweep.py")
def test_sweep(page, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert sweep.main(sweep.parse_args([*words, "--dry-run", "--output-dir", str(tmp_path)])) == 0
    assert "train.py" in capsys.readouterr().out


@of("predict.py")
def test_predict(page, words):
    predict.parse_args(words)


@of("export.py")
def test_export(page, words):
    export.parse_args(words)


@of("parse_test_res.py")
def test_table(page, words):
    parse_test_res.parse_args(words)
