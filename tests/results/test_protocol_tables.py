"""The table of held-out tasks: means, differences to zero-shot and wins, computed by hand."""

import json
import math

import pytest

import parse_test_res
from tests._records import record, write

VALUES = {"zero-shot": (50.0, 60.0), "CoOp-MT": (58.0, 56.0), "SoftCPT-NATA": (54.0, 66.0)}
NAMES = ("kind of tree", "kind of leaf")


def held_out_run(folder, chosen, name, value, **protocol):
    content = record(tasks=((name, "", value),), name="leave_one_task_out", **protocol)
    content["protocol"]["tasks"] = chosen
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))


@pytest.fixture
def runs(tmp_path):
    """A test of each task per method and seed, 1 point apart, and the trainings without it."""
    for method, values in VALUES.items():
        for t, value in enumerate(values):
            for seed in (1, 2) if method != "zero-shot" else (1,):
                who, place = dict(method=method, seed=seed), tmp_path / method / f"task{t}"
                held_out_run(place / f"seed{seed}", f"task{t}", NAMES[t], value + seed - 1, **who)
                if method != "zero-shot":
                    training = place / "training" / f"seed{seed}"
                    held_out_run(training, f"not_task{t}", NAMES[1 - t], 99.0, **who)
    return tmp_path


def report(folder, capsys, *flags):
    code = parse_test_res.command([str(folder), *flags])
    return code, capsys.readouterr().out


def test_a_row_per_method_a_column_per_held_out_task(runs, capsys):
    code, text = report(runs, capsys, "--format", "md")
    assert code == 0 and "99" not in text  # accuracies on trained tasks are not held-out ones
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["method", "shots", "mean", "over zero-shot", "wins", *NAMES]
    found = {row[0]: row[1:] for row in rows[2:]}
    assert found["zero-shot"][:2] == ["0", "55.0"]
    # means over seeds are half a point above those of seed 1: gains of 8.5 and -3.5
    half = 12.706204736 * math.sqrt(2 * 6.0**2) / math.sqrt(2)  # Student's t for two tasks
    assert found["CoOp-MT"][1:4] == ["57.5 ± 0.5", f"+2.5 ± {half:.1f}", "1 of 2"]
    assert found["SoftCPT-NATA"][1:4] == ["**60.5 ± 0.5**", "+5.5 ± 12.7", "2 of 2"]
    assert found["SoftCPT-NATA"][4:] == ["54.5 ± 0.5", "**66.5 ± 0.5**"]
    assert "n/a" not in text


def test_a_seed_that_lacks_a_task_is_not_in_the_mean(runs, capsys):
    (runs / "CoOp-MT/task1/seed2/results.json").unlink()
    text = report(runs, capsys, "--table", "md")[1]
    row = next(line for line in text.splitlines() if line.startswith("| CoOp-MT"))
    assert row.split(" | ")[2] == "57.0"  # seed 1 alone
    (runs / "CoOp-MT/task1/seed1/results.json").unlink()
    text = report(runs, capsys, "--table", "md")[1]
    row = next(line for line in text.splitlines() if line.startswith("| CoOp-MT"))
    assert row.split(" | ")[2:5] == ["n/a", "+8.5", "1 of 1"]  # the first task alone


def test_other_runs_keep_their_tables(runs, capsys):
    write(runs / "few_shot/seed1", method="CoCoOp")
    text = report(runs, capsys, "--format", "md")[1]
    assert "Trees, held-out tasks" in text and "Trees, by shots" in text
    assert "CoCoOp" in text.split("Trees, by shots")[1]
    assert "CoOp-MT" not in text.split("Trees, by shots")[1]


def test_the_html_report_has_it(runs, capsys):
    assert report(runs, capsys, "--format", "html")[0] == 0
    assert "held-out tasks" in (runs / "report.html").read_text(encoding="utf-8")


def test_each_backbone_is_compared_with_its_own_zero_shot(runs, capsys):
    for method, value in (("zero-shot", 80.0), ("CoOp-MT", 83.0)):
        for t, name in enumerate(NAMES):
            place, who = runs / "ViT" / method / f"task{t}", dict(method=method, seed=1)
            held_out_run(place, f"task{t}", name, value, backbone="ViT-B/16", **who)
    _, text = report(runs, capsys, "--format", "md")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if "CoOp-MT (" in line]
    assert {row[0]: row[3].split()[0] for row in lines} == {
        "CoOp-MT (backbone RN50)": "+2.5",
        "CoOp-MT (backbone ViT-B/16)": "+3.0",
    }
