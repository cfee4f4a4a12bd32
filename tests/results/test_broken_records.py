"""Records, folders and output files that cannot be used: one line, exit code 2."""

import json
import math

import pytest

import parse_test_res
from tests._command_line import one_line
from tests._records import record, seeds, write


def parse(capsys, *argv):
    """Exit code, stdout, stderr."""
    code = parse_test_res.command([str(word) for word in argv])
    return code, *capsys.readouterr()


def _unfinished(key, value):
    """A change to a record that is not complete."""

    def change(content):
        content["status"] = "failed"
        content["protocol"][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema=3), "schema is 3; this version reads 1 and 2"),
        (lambda c: c.update(status="done"), "status is 'done', not one of running"),
        (lambda c: c["protocol"].pop("method"), "protocol.method is missing"),
        (
            lambda c: c["protocol"].update(shots="4"),
            "protocol.shots must be of type int, but is '4'",
        ),
        (lambda c: c["tasks"][1].pop("value"), "tasks.1.value is missing"),
        (lambda c: c["tasks"][0].update(value="a"), "tasks.0.value must be a percentage"),
        (lambda c: c["tasks"][0].update(value=math.nan), "tasks.0.value must be a percentage"),
        (lambda c: c["suite"].update(value=101.0), "suite.value must be a percentage"),
        (lambda c: c.update(trainable={"parameters": "x"}), "trainable.parameters must be of type"),
        (lambda c: c.update(run={"seconds": math.inf}), "run.seconds must be a number, but is inf"),
        (
            lambda c: c.update(run={"time_split": {"data": None}}),
            "run.time_split.data must be a number, but is None",
        ),
        (lambda c: c["suite"].update(groups={"a": "b"}), "suite.groups.a must be a percentage"),
        (lambda c: c["tasks"][0].update(value=10**400), "tasks.0.value must be a percentage"),
        (lambda c: c.update(hashes=["x"]), "hashes must be of type dict"),
        (_unfinished("method", 5), "protocol.method must be of type str, but is 5"),
        (_unfinished("shots", None), "protocol.shots must be of type int, but is None"),
        (_unfinished("seed", [1]), "protocol.seed must be of type int, but is [1]"),
        (lambda c: c.update(run="x"), "run must be of type dict"),
        (lambda c: c.update(data="x"), "data must be of type dict"),
        (lambda c: c.update(data={"test_subset": "x"}), "data.test_subset.items is missing"),
    ],
)
def test_broken_records_are_named(tmp_path, capsys, change, message):
    content = record()
    change(content)
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "results.json").write_text(json.dumps(content))
    code, _, err = parse(capsys, tmp_path)
    assert code == 2
    assert f"{tmp_path / 'seed1' / 'results.json'}: {message}" in err


def test_records_that_are_no_record(tmp_path, capsys):
    (tmp_path / "results.json").write_text("[]")
    assert "must hold keys and values, not a list" in parse(capsys, tmp_path)[2]


def test_a_half_written_record_is_named(tmp_path, capsys):
    file = write(tmp_path / "seed1") / "results.json"
    file.write_text(file.read_text()[:99])
    for flags in ([], ["--format", "md"]):
        code, _, err = parse(capsys, tmp_path, *flags)
        assert code == 2 and f"{file} is not valid JSON" in err


@pytest.mark.parametrize(
    "words",
    [
        ("--format", "md", "--out", "{folder}"),
        ("--table", "md", "--out", "/proc/nowhere/table.md"),
        ("--format", "html", "--out", "{folder}/report.txt"),
        ("--figure", "{folder}"),
        ("--pictures", "{folder}/seed1/results.json"),
    ],
)
def test_outputs_that_cannot_be_written(tmp_path, capsys, words):
    folder = seeds(tmp_path, [(80.0, 60.0)])
    code, _, err = parse(capsys, folder, *(word.format(folder=folder) for word in words))
    assert code == 2 and one_line(err)


def test_seeds_of_older_records_share_a_row(tmp_path, capsys):
    """Records that name the draw under protocol.split_hash, which differs between seeds."""
    for seed in (1, 2):
        write(tmp_path / f"seed{seed}", seed=seed, split_hash=f"draw {seed}")
    assert "n = 2" in parse(capsys, tmp_path)[1]


def test_characters_that_the_font_lacks_are_no_warning(tmp_path, recwarn):
    seeds(tmp_path, [(80.0, 60.0)], suite="日本")
    assert parse_test_res.command([str(tmp_path), "--figure", str(tmp_path / "f.svg")]) == 0
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
