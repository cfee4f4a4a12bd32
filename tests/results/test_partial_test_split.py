"""Results over fewer images or questions than the test split has are marked wherever shown."""

import pytest

import parse_test_res
import train
from results.aggregate import aggregate
from results.few_shot_curves import panels_of
from results.read import find_runs
from tests._records import write

MARK = "500 of 1,000 test images"
PARTIAL = {"test_subset": {"items": 500, "of": 1000, "unit": "images"}}


def parse(capsys, *argv):
    code = parse_test_res.command([str(word) for word in argv])
    return code, capsys.readouterr().out


@pytest.fixture
def folder(tmp_path):
    """Two partial seeds, an unfinished one, and a run over the full split."""
    for seed in (1, 2):
        write(tmp_path / "partial" / f"seed{seed}", seed=seed, suite="Flickr30k", data=PARTIAL)
    write(tmp_path / "stopped", seed=3, suite="Flickr30k", data=PARTIAL, status="failed")
    write(tmp_path / "full", suite="Flickr30k", data={"tasks": []})
    return tmp_path


@pytest.mark.parametrize("form", ["text", "md", "csv", "latex", "html"])
def test_every_format_marks_them(folder, capsys, form):
    code, out = parse(capsys, folder, "--format", form)
    if form == "html":
        out = (folder / "report.html").read_text()
    assert code == 1 and f"Flickr30k ({MARK})" in out  # 1: a run is not complete


def test_they_are_rows_of_their_own(folder, capsys):
    rows = {row.suite: row.seeds for row in aggregate(find_runs(folder))}
    assert rows == {"Flickr30k": "1", f"Flickr30k ({MARK})": "2 of 3"}
    assert {panel.title for panel in panels_of(aggregate(find_runs(folder)))} == set(rows)
    for form in ("text", "md"):
        assert f"Flickr30k ({MARK})" in parse(capsys, folder, "--table", form)[1]


def test_the_summary_of_an_experiment_says_so(folder, capsys):
    code, out = parse(capsys, folder / "partial")
    assert code == 0 and f"evaluated on {MARK}" in out
    assert "evaluated on" not in parse(capsys, folder / "full")[1]


def test_a_run_on_the_last_questions(tmp_path, capsys):
    words = ["--trainer", "ZeroshotCLIP", "--output-dir", str(tmp_path), "--seed", "1", "--quiet"]
    words += ["--backbone", "tiny", "DATASET.NAME", "DigitQuestions"]
    content = train.main(train.parse_args([*words, "DATASET.QUESTIONS.NUM_TEST", "20"]))
    expected = {"items": 20, "of": 2 * 897, "unit": "questions"}
    assert content["data"]["test_subset"] == expected
    assert "evaluated on 20 of 1,794 test questions" in parse(capsys, tmp_path)[1]
