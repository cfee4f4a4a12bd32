import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import parse_test_res
from tests._command_line import parse
from tests._records import seeds, write

VALUES = [(80.0, 60.0), (82.0, 64.0), (87.0, 62.0)]
MEANS = [70.0, 73.0, 74.5]
GROUPED = (("oak", "seen", 80.0), ("elm", "unseen", 40.0), ("fir", "unseen", 50.0))


def test_seeds_of_one_experiment(tmp_path, capsys):
    code, lines, _ = parse(capsys, seeds(tmp_path, VALUES))
    mean, std = statistics.mean(MEANS), statistics.pstdev(MEANS)
    assert code == 0
    assert lines[1:4] == [f"seed{i}: overall_metric: {m:.2f}%" for i, m in enumerate(MEANS, 1)]
    assert f"* overall_metric: {mean:.2f}% +- {std:.2f}%" in lines
    tree = [tree for tree, _ in VALUES]
    expected = f"{statistics.mean(tree):.2f}% +- {statistics.pstdev(tree):.2f}%"
    assert f"* task: 0 (kind of tree) metric: {expected}" in lines
    assert "n = 3" in lines


def test_other_measures_of_spread(tmp_path, capsys):
    seeds(tmp_path, VALUES)
    mean = statistics.mean(MEANS)
    _, lines, _ = parse(capsys, tmp_path, "--ci95")
    half = 1.96 * statistics.pstdev(MEANS) / 3**0.5
    assert f"* overall_metric: {mean:.2f}% +- {half:.2f}%" in lines
    _, lines, _ = parse(capsys, tmp_path, "--sample-std", "--test-log")
    assert f"* overall_metric: {mean:.2f}% +- {statistics.stdev(MEANS):.2f}%" in lines
    _, lines, _ = parse(capsys, tmp_path, "--interval")
    half = 4.302653 * statistics.stdev(MEANS) / 3**0.5  # Student's t, 2 degrees of freedom
    assert f"* overall_metric: {mean:.2f}% +- {half:.2f}%" in lines
    code, _, err = parse(capsys, tmp_path, "--interval", "--ci95")
    assert code == 2 and "--interval" in err


def test_one_seed_has_no_sample_std(tmp_path, capsys):
    seeds(tmp_path, VALUES[:1])
    assert "* overall_metric: 70.00% +- 0.00%" in parse(capsys, tmp_path)[1]
    assert "* overall_metric: 70.00% +- n/a" in parse(capsys, tmp_path, "--sample-std")[1]


def test_unfinished_seeds_are_named_and_not_counted(tmp_path, capsys):
    seeds(tmp_path, VALUES)
    write(tmp_path / "seed3", status="interrupted", seed=3)
    (tmp_path / "seed4").mkdir()
    (tmp_path / "seed5").mkdir()
    (tmp_path / "seed5" / "log.txt").write_text("* overall_metric: 99.0%\n")
    (tmp_path / ".hidden").mkdir()
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 1
    assert f"* overall_metric: {statistics.mean(MEANS[:2]):.2f}% +- 1.50%" in lines
    assert "seed3: interrupted" in lines and "seed4: no results.json" in lines
    assert (
        "n = 2 of 5; not complete: seed3 (interrupted), seed4 (no results.json), "
        "seed5 (no results.json, and a log without an end)"
    ) in lines


def test_a_run_that_stopped_before_it_knew_anything(tmp_path, capsys):
    seeds(tmp_path, VALUES[:1])
    (tmp_path / "seed2").mkdir()
    content = {"schema": 1, "status": "failed", "protocol": {"seed": 2}, "tasks": [], "suite": {}}
    (tmp_path / "seed2" / "results.json").write_text(json.dumps(content))
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 1 and "n = 1 of 2; not complete: seed2 (failed)" in lines


def test_groups_get_a_line_each(tmp_path, capsys):
    write(tmp_path / "seed1", tasks=GROUPED)
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 0
    shown = "overall_metric (seen): 80.00%, overall_metric (unseen): 45.00%"
    assert lines[1] == f"seed1: {shown}"
    assert "* overall_metric (unseen): 45.00% +- 0.00%" in lines
    assert not any(line.startswith("* overall_metric:") for line in lines)


@pytest.mark.parametrize(("keyword", "value"), [("unseen", "45.00"), ("fir", "50.00")])
def test_keyword_of_a_group_or_a_task(tmp_path, capsys, keyword, value):
    write(tmp_path / "seed1", tasks=GROUPED)
    code, lines, _ = parse(capsys, tmp_path, "--keyword", keyword)
    assert code == 0 and f"* {keyword}: {value}% +- 0.00%" in lines
    assert not any("task:" in line for line in lines)


def test_unknown_keyword(tmp_path, capsys):
    write(tmp_path / "seed1", tasks=GROUPED)
    code, _, err = parse(capsys, tmp_path, "--keyword", "unsen")
    assert code == 2
    assert err.startswith("error: no value named 'unsen'; did you mean unseen?")


def test_a_single_run_may_be_given(tmp_path, capsys):
    code, lines, _ = parse(capsys, write(tmp_path / "seed1"))
    assert code == 0 and "* overall_metric: 70.00% +- 0.00%" in lines


def test_many_experiments(tmp_path, capsys):
    seeds(tmp_path / "a", VALUES)
    seeds(tmp_path / "b", [(50.0, 50.0)])
    code, lines, _ = parse(capsys, tmp_path, "--multi-exp")
    assert code == 0
    assert lines.index(f"Parsing {tmp_path / 'a'}") < lines.index(f"Parsing {tmp_path / 'b'}")
    assert "Average performance (n = 2 of 2 experiments)" in lines
    assert lines[-1] == f"* overall_metric: {(statistics.mean(MEANS) + 50) / 2:.2f}%"


def test_experiments_without_a_run_are_named(tmp_path, capsys):
    seeds(tmp_path / "a", VALUES)
    write(tmp_path / "b" / "seed1", status="failed")
    code, lines, _ = parse(capsys, tmp_path, "--multi-exp")
    assert code == 1
    assert any("not counted: there is no complete run in" in line for line in lines)
    assert "Average performance (n = 1 of 2 experiments)" in lines


def test_experiments_of_unlike_suites_say_how_many_have_a_value(tmp_path, capsys):
    seeds(tmp_path / "a", VALUES)
    write(tmp_path / "b" / "seed1", tasks=GROUPED)
    lines = parse(capsys, tmp_path, "--multi-exp")[1]
    assert "* overall_metric: 72.50% (n = 1)" in lines


@pytest.mark.parametrize("argv", [[], ["--multi-exp"], ["--table", "text"]])
def test_nothing_found(tmp_path, capsys, argv):
    code, _, err = parse(capsys, tmp_path, *argv)
    assert code == 2 and err.startswith("error: there is no complete run")


def test_missing_folder(tmp_path, capsys):
    code, _, err = parse(capsys, tmp_path / "nowhere")
    assert code == 2 and "cannot list the folder" in err
    code, _, err = parse(capsys, tmp_path / "nowhere", "--table", "md")
    assert code == 2 and "there is no folder" in err


def test_a_folder_too_high_is_told(tmp_path, capsys):
    seeds(tmp_path / "a", VALUES)
    code, _, err = parse(capsys, tmp_path)
    assert code == 2 and "the runs lie deeper" in err and "--multi-exp" in err


def test_runs_of_different_experiments_are_not_averaged(tmp_path, capsys):
    write(tmp_path / "seed1", seed=1)
    write(tmp_path / "seed2", seed=2, options={"N_CTX": 4, "CSC": False})
    code, _, err = parse(capsys, tmp_path)
    assert code == 2
    assert "not seeds of one experiment: N_CTX is 16 in seed1, 4 in seed2" in err


def test_a_seed_is_not_counted_twice(tmp_path, capsys):
    write(tmp_path / "seed1")
    write(tmp_path / "seed1-copy")
    code, _, err = parse(capsys, tmp_path)
    assert code == 2 and "seed1 and seed1-copy" in err and "have the same seed 1" in err


def test_table_and_figure_over_everything_below(tmp_path, capsys):
    seeds(tmp_path / "deep" / "CoOp", VALUES)
    write(tmp_path / "zs", method="zero-shot", shots=1)
    argv = ["--table", "md", "--out", tmp_path / "t.md", "--figure", tmp_path / "f.png"]
    code, lines, err = parse(capsys, tmp_path, *argv)
    assert code == 0
    head = "| method | shots | seeds | mean | kind of tree | kind of leaf | learned | s | MB |"
    assert head in lines
    assert "| zero-shot | 0 | 1 | 70.0 | 80.0 | 60.0 |  |  |  |" in lines
    assert "| CoOp-CA | 4 | 3 | 72.5 ± 1.9 | 83.0 ± 2.9 | 62.0 ± 1.6 |  |  |  |" in lines
    assert (tmp_path / "t.md").read_text(encoding="utf-8").splitlines() == lines[:-1]
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert f"figure: {tmp_path / 'f.png'}" in err


def test_table_names_what_is_not_counted(tmp_path, capsys):
    seeds(tmp_path, VALUES)
    write(tmp_path / "seed3", status="running", seed=3)
    code, lines, _ = parse(capsys, tmp_path, "--table", "text")
    assert code == 1
    assert any(line.split()[:5] == ["CoOp-CA", "4", "2", "of", "3"] for line in lines)
    assert f"- {tmp_path / 'seed3'}: running" in lines


def test_figure_alone_says_what_is_not_counted(tmp_path, capsys):
    seeds(tmp_path, VALUES)
    for i in range(12):
        write(tmp_path / f"x{i}", status="failed", seed=9)
    code, lines, _ = parse(capsys, tmp_path, "--figure", tmp_path / "f.png")
    assert code == 1 and "x0: failed" in lines[0] and lines[0].endswith("and 2 more")


@pytest.mark.parametrize("flags", [("--ci95",), ("--multi-exp",), ("--keyword", "macro_f1")])
@pytest.mark.parametrize("report", ["--table", "--format", "--figure", "--pictures"])
def test_flags_that_do_not_go_together(report, flags, tmp_path, capsys):
    assert parse_test_res.command([str(tmp_path), report, "md", *flags]) == 2
    err = capsys.readouterr().err
    assert report in err and flags[0] in err


@pytest.mark.parametrize("form", ["text", "md", "csv", "latex"])
def test_everything_in_every_form(tmp_path, capsys, form):
    seeds(tmp_path / "a", VALUES)
    seeds(tmp_path / "b", VALUES[:2], method="CoOp-MT", shots=16)
    out = tmp_path / "out.txt"
    code, lines, _ = parse(capsys, tmp_path, "--format", form, "--published", "--out", out)
    assert code == 0
    text = out.read_text(encoding="utf-8")
    assert text.splitlines() == "\n".join(lines).rstrip().splitlines()
    mean = f"{statistics.mean(MEANS):.1f}"
    assert mean in text and "Trees, by shots" in text
    if form != "csv":
        assert "Trees, CoOp-MT, 16 shots, seed 3: no run" in text
        assert "no run has a suite" in text


def test_flags_of_the_report_alone(tmp_path, capsys):
    for flags, message in {
        ("--columns", "ece"): "--columns goes with --table or --format",
        ("--published",): "--published and --reference go with --format",
        ("--format", "md", "--table", "md"): "--format holds what --table shows",
        ("--format", "md", "--multi-exp"): "leave --multi-exp out",
    }.items():
        assert parse_test_res.command([str(tmp_path), *flags]) == 2
        assert message in capsys.readouterr().err


def test_all_pictures(tmp_path, capsys):
    seeds(tmp_path / "a", VALUES)
    code, _, err = parse(capsys, tmp_path, "--pictures", tmp_path / "p")
    assert code == 0 and "curves.png" in err
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["curves.png", "curves.svg"]
    seeds(tmp_path / "z", VALUES[:1], method="zero-shot")
    parse(capsys, tmp_path, "--pictures", tmp_path / "p")
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert names == {"curves.png", "curves.svg", "gains.png", "gains.svg"}


def test_a_reader_that_stops_early(tmp_path):
    """As in ``parse_test_res.py DIR | head -1``."""
    seeds(tmp_path, VALUES)
    command = [sys.executable, parse_test_res.__file__, str(tmp_path), "--format", "text"]
    process = subprocess.Popen(
        command, cwd=Path(parse_test_res.__file__).parent, stdout=-1, stderr=-1, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 0
