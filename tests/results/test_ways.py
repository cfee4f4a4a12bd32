"""Tables that compare ways of training the same tasks, computed by hand."""

import json
import math

import pytest

import parse_test_res
from tests._records import record

NAMES = ("kind of tree", "kind of leaf")
T95 = 12.706204736  # of Student's distribution for two seeds


def write(folder, protocol, values, tasks="all", **own):
    content = record(tasks=tuple((n, "", v) for n, v in values.items()), name=protocol, **own)
    content["protocol"]["tasks"] = tasks
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))


def rows_of(folder, capsys, code=0):
    assert parse_test_res.command([str(folder), "--table", "md"]) == code
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return rows[0], {row[2]: row[3:] for row in rows[2:]}, lines


@pytest.fixture
def transfer(tmp_path):
    """Zero-shot, a source, and two target tasks with two seeds from scratch and from it."""
    write(tmp_path / "zs", "transfer", dict(zip(NAMES, (30.0, 40.0), strict=True)), "new",
          method="zero-shot")  # fmt: skip
    for seed, scratch, moved in ((1, (50, 60), (54, 59)), (2, (52, 62), (58, 61))):
        who = dict(method="SoftCPT-NATA", seed=seed)
        write(tmp_path / f"source{seed}", "transfer", {"kind of bark": 99.0}, "base", **who)
        own = {"target": scratch, "moved": moved}
        for name, values in own.items():
            keys = dict(who, init_from="Trees base 16 shots 0a1b2c3d") if name == "moved" else who
            values = dict(zip(NAMES, map(float, values), strict=True))
            write(tmp_path / f"{name}{seed}", "transfer", values, "new", **keys)
    return tmp_path


def test_from_source_against_from_scratch(transfer, capsys):
    head, rows, lines = rows_of(transfer, capsys)
    assert head[3:] == [
        "zero-shot",
        "from scratch",
        "from source",
        "from source minus from scratch",
    ]
    assert rows["kind of tree"] == [
        *("30.0", "51.0 ± 1.0", "**56.0 ± 2.0**", f"+5.0 ± {T95 * 1.0:.1f}")
    ]
    assert rows["kind of leaf"][-1] == "−1.0 ± 0.0"
    # means over tasks of each seed: 55 and 57 from scratch, 56.5 and 59.5 from the source
    half = T95 * math.sqrt(2 * 0.5**2) / math.sqrt(2)
    assert rows["mean"] == [*("35.0", "56.0 ± 1.0", "**58.0 ± 1.5**", f"+2.0 ± {half:.1f}, 1 of 2")]
    assert "99" not in "\n".join(lines)  # the source's own accuracy is not one on the targets
    assert any("from source: Trees base 16 shots" in line for line in lines)
    assert "no group" not in "\n".join(lines)


def test_a_run_from_nothing_waits_for_its_counterpart(transfer, capsys):
    for seed in (1, 2):
        (transfer / f"moved{seed}" / "results.json").unlink()
    assert parse_test_res.command([str(transfer), "--table", "md"]) == 0
    assert "from source tasks" not in capsys.readouterr().out


def test_groups_against_alone_and_all_together(tmp_path, capsys):
    who = dict(method="SoftCPT-NATA")
    names = (*NAMES, "kind of bark")
    alone, together = (50.0, 60.0, 70.0), (55.0, 58.0, 71.0)
    for t, (name, value) in enumerate(zip(names, alone, strict=True)):
        write(tmp_path / f"alone{t}", "task_groups", {name: value}, f"task{t}", **who)
    pair = {names[0]: 56.0, names[1]: 63.0}
    write(tmp_path / "group", "task_groups", pair, "task0+1", **who)
    write(tmp_path / "all", "task_groups", dict(zip(names, together, strict=True)), "all", **who)
    head, rows, lines = rows_of(tmp_path, capsys)
    assert head[3:6] == ["alone", "in groups", "all together"]
    assert any("in groups: 0+1" in line for line in lines)
    assert any("a task that no group holds is that task alone" in line for line in lines)
    assert rows["kind of tree"] == ["50.0", "**56.0**", "55.0", "+6.0", "+5.0"]
    assert rows["kind of bark"] == ["70.0", "70.0", "**71.0**", "0.0", "+1.0"]  # a group of its own
    assert rows["mean"] == ["60.0", "**63.0**", "61.3", "+3.0, 2 of 3", "+1.3, 2 of 3"]
    other = {names[1]: 64.0, names[2]: 65.0}
    write(tmp_path / "other", "task_groups", other, "task1+2", **who)
    head, rows, _ = rows_of(tmp_path, capsys)
    assert head[3:7] == ["alone", "groups 0+1", "groups 1+2", "all together"]
    assert rows["kind of leaf"][:4] == ["60.0", "63.0", "**64.0**", "58.0"]
    # the run of a group with the tree may be missing, so "alone" does not take its place
    assert rows["kind of tree"][:4] == ["50.0", "**56.0**", "n/a", "55.0"]


def write_alone(folder, names, **who):
    for t, name in enumerate(names):
        write(folder / f"alone{t}", "task_groups", {name: 50.0 + t}, f"task{t}", **who)


def test_a_group_that_failed_does_not_take_the_values_of_its_tasks_alone(tmp_path, capsys):
    names = ("a", "b", "c", "d", "e")
    write_alone(tmp_path, names)
    write(tmp_path / "g01", "task_groups", {"a": 60.0, "b": 61.0}, "task0+1")
    write(tmp_path / "g23", "task_groups", {}, "task2+3", status="failed")
    head, rows, _ = rows_of(tmp_path, capsys, code=1)
    assert head[3:5] == ["alone", "in groups"]
    assert rows["c"] == ["52.0", "n/a", "n/a"]
    assert rows["e"][1] == "54.0"  # a group of its own
    assert rows["mean"][1] == "n/a"


def test_a_group_belongs_to_every_grouping_that_has_it(tmp_path, capsys):
    write_alone(tmp_path, ("a", "b", "c", "d", "e"))
    for numbers, value in (((0, 1, 2), 60.0), ((0, 1), 61.0), ((3, 4), 62.0)):
        choice = "task" + "+".join(map(str, numbers))
        write(tmp_path / choice, "task_groups", {"abcde"[t]: value for t in numbers}, choice)
    # another suite with other groups does not change those of the first
    write(tmp_path / "other", "task_groups", {"x": 1.0, "y": 1.0}, "task1+2", suite="Birds")
    head, rows, _ = rows_of(tmp_path, capsys)
    assert head[3:6] == ["alone", "groups 0+1, 3+4", "groups 0+1+2, 3+4"]
    assert rows["d"][1:3] == ["**62.0**", "**62.0**"]


def test_blocks_of_several_backbones_have_names_and_zero_shot_of_their_own(tmp_path, capsys):
    for backbone, value in (("RN50", 40.0), ("ViT-B/16", 70.0)):
        place = tmp_path / backbone.replace("/", "")
        own = dict(backbone=backbone)
        zero_shot = {name: value - 10 for name in NAMES}
        write(place / "zs", "transfer", zero_shot, method="zero-shot", shots=0, **own)
        write(place / "scratch", "transfer", dict.fromkeys(NAMES, value), **own)
        for source in ("0a1b2c3d", "4e5f6a7b")[: 1 + (value > 50)]:
            moved = dict.fromkeys(NAMES, value + int(source[0]))
            words = f"Trees 16 shots {source}"
            write(place / source, "transfer", moved, init_from=words, **own)
    _, _, lines = rows_of(tmp_path, capsys)
    means = [line.strip("| ").split(" | ") for line in lines if "| mean |" in line]
    assert [row[0] for row in means] == ["CoOp-CA (backbone RN50)", "CoOp-CA (backbone ViT-B/16)"]
    assert [row[3] for row in means] == ["30.0", "60.0"]
    # two sources of the same title are two columns, with their hashes
    assert [row[5:8] for row in means] == [
        ["**40.0**", "n/a", "n/a"],
        ["n/a", "70.0", "**74.0**"],
    ]


def test_blocks_with_other_options_name_them(tmp_path, capsys):
    for length in (4, 16):
        own = dict(options={"N_CTX": length})
        values = dict.fromkeys(NAMES, 50.0 + length)
        write_alone(tmp_path / f"{length}", NAMES, **own)
        write(tmp_path / f"all{length}", "task_groups", values, "all", **own)
    _, _, lines = rows_of(tmp_path, capsys)
    labels = [line.strip("| ").split(" | ")[0] for line in lines if "| mean |" in line]
    assert labels == ["CoOp-CA (N_CTX 16)", "CoOp-CA (N_CTX 4)"]


def test_runs_without_a_value_are_no_error(tmp_path, capsys):
    for way, own in (("scratch", {}), ("moved", {"init_from": "Trees 16 shots 0a1b2c3d"})):
        write(tmp_path / way, "transfer", dict.fromkeys(NAMES, 50.0), **own)
        file = tmp_path / way / "results.json"
        content = json.loads(file.read_text())
        content["suite"]["value"] = None
        content["tasks"] = [{**task, "value": None} for task in content["tasks"]]
        file.write_text(json.dumps(content))
    _, rows, _ = rows_of(tmp_path, capsys, code=1)
    assert rows["mean"] == ["n/a", "n/a", "n/a"]
