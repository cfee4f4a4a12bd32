"""The logs of our own runs, read without their records."""

import re

import pytest

import train
from tests._command_line import parse
from tests.conftest import TASKS, toy_args


@pytest.mark.parametrize("dataset", ["Toy", "ToyGroups"])
def test_our_own_log_says_what_the_record_says(toy, tmp_path, capsys, dataset):
    opts = ("TEST.PER_TASK_RESULT", "True")
    for number in ("1", "2"):
        folder = tmp_path / "runs" / f"seed{number}"
        train.main(
            toy_args("MTCoOpHard", *opts, dataset=dataset, output=folder, flags=("--seed", number))
        )
    _, with_record, _ = parse(capsys, tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("results.json"):
        path.unlink()
    code, from_log, _ = parse(capsys, tmp_path / "runs")
    assert code == 0 and from_log == with_record


def test_a_task_trained_by_itself_has_its_number_of_the_suite(toy, tmp_path, capsys):
    capsys.readouterr()
    opts = ("OPTIM.MAX_EPOCH", 1, "TEST.PER_TASK_RESULT", "True")
    train.main(toy_args("CoOp", *opts, output=tmp_path / "run"))
    text = (tmp_path / "run" / "log.txt").read_text()
    numbers = re.findall(r"^\* task: (\d) \((.*?)\)", text, re.MULTILINE)
    assert numbers == [(str(t), task.name) for t, task in enumerate(TASKS)]
