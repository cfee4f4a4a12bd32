"""Which tasks help each other: the table, the figure and the groups of recorded gradients."""

import json

import pytest
import yaml

import parse_test_res
import sweep
from results.read import find_runs
from results.task_relations import FILE, relations_of, save_relations
from sweeps.grouping import group_tasks
from tests._records import record

NAMES = ("kind of tree", "kind of leaf", "kind of bark")
T95 = 12.706204736  # of Student's distribution for two seeds


def write(folder, values, tasks="all", **own):
    content = record(tasks=tuple((n, "", v) for n, v in values.items()), method="NATA", **own)
    content["protocol"] |= {"tasks": tasks, "name": "task_groups"}
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))


@pytest.fixture
def runs(tmp_path):
    """Two seeds trained jointly, with the cosines of two steps each, and the tasks alone."""
    for seed, gain in ((1, 2.0), (2, 4.0)):
        joint = tmp_path / "out" / f"joint{seed}"
        values = dict(zip(NAMES, (50.0 + gain, 60.0, 70.0), strict=True))
        write(joint, values, seed=seed)
        # trees and leaves agree, bark disagrees with both; the last step has no bark
        steps = [
            [[1, 0.5, -0.2 * seed], [0.5, 1, -0.1], [-0.2 * seed, -0.1, 1]],
            [[1, 0.7, None], [0.7, 1, None], [None, None, None]],
        ]
        contexts = [[1, 0.9, 0.8], [0.9, 1, 0.7], [0.8, 0.7, 1]]
        relations = dict(tasks=NAMES, tensors=["ctx"], steps=[0, 5], cosines=steps)
        (joint / FILE).write_text(json.dumps({**relations, "contexts": contexts}))
        for t, name in enumerate(NAMES[:2]):  # bark was not trained alone
            write(
                tmp_path / "out" / f"alone{t}{seed}", {name: (50.0, 61.0)[t]}, f"task{t}", seed=seed
            )
    return tmp_path / "out"


def test_the_table_has_gains_cosines_and_contexts(runs, capsys):
    assert parse_test_res.command([str(runs), "--format", "md"]) == 0
    part = capsys.readouterr().out.split("which tasks help each other")[1].splitlines()
    rows = [line.strip("| ").split(" | ") for line in part if line.startswith("|")]
    assert rows[0] == ["task", "alone", "jointly", "gain", *NAMES]
    found = {row[0]: [cell.strip(" |") for cell in row[1:]] for row in rows[2:]}
    tree = found["kind of tree"]
    assert tree[:3] == ["50.0 ± 0.0", "53.0 ± 1.0", f"+3.0 ± {T95:.1f}"]
    assert tree[4:] == ["+0.60, 0.90", "−0.30, 0.80"]  # means over steps, then over seeds
    assert found["kind of leaf"][2] == "−1.0 ± 0.0"
    assert found["kind of bark"][:3] == ["n/a", "70.0 ± 0.0", "n/a"]


def test_the_figure_is_drawn(runs, tmp_path, capsys):
    file = tmp_path / "relations.png"
    assert parse_test_res.command([str(runs), "--relations", str(file)]) == 0
    assert file.read_bytes()[:4] == b"\x89PNG" and str(file) in capsys.readouterr().err
    for path in runs.rglob(FILE):
        path.unlink()
    assert parse_test_res.command([str(runs), "--relations", str(file)]) == 2
    assert "TRAIN.TASK_GRADIENTS" in capsys.readouterr().err


def test_a_broken_file_is_named(runs, capsys):
    (runs / "joint1" / FILE).write_text('{"tasks": ["a"], "cosines": [[[1, 2]]], "contexts": null}')
    assert parse_test_res.command([str(runs), "--format", "md"]) == 2
    assert str(runs / "joint1" / FILE) in capsys.readouterr().err


def test_tasks_whose_gradients_agree_are_grouped():
    cosines = [
        [1, -0.3, 0.6, 0.1],
        [-0.3, 1, -0.2, 0.5],
        [0.6, -0.2, 1, 0],
        [0.1, 0.5, 0, 1],
    ]
    assert group_tasks(cosines, 2) == [[0, 2], [1, 3]]
    assert group_tasks(cosines, 3) == [[0, 2], [1], [3]]
    assert group_tasks(cosines, 9) == [[0], [1], [2], [3]]


def test_backbones_are_not_mixed_and_a_seed_counts_once(runs):
    other = dict(seed=1, backbone="ViT-B/16")
    write(runs / "another", dict.fromkeys(NAMES, 90.0), **other)
    write(runs / "another0", {NAMES[0]: 80.0}, "task0", **other)
    write(runs / "joint1_again", dict.fromkeys(NAMES, 10.0), seed=1)
    for name in ("another", "joint1_again"):
        (runs / name / FILE).write_text((runs / "joint1" / FILE).read_text())
    # the samplers of tasks have no effect on one task, so its run is found all the same
    balanced = json.loads((runs / "another/results.json").read_text())
    balanced["balance"] = {"sampler": "EqualTaskSampler"}
    (runs / "another/results.json").write_text(json.dumps(balanced))
    found = {relation.gains(0)[0]: relation for relation in relations_of(find_runs(runs))}
    assert list(found) == [10.0, 2.0]
    assert "backbone ViT-B/16" in found[10.0].method and "backbone RN50" in found[2.0].method
    assert found[2.0].gains(0) == [2.0, 4.0]


def test_a_pair_that_was_never_in_one_batch_is_refused(runs, tmp_path, capsys):
    for path in runs.rglob(FILE):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "cosines": content["cosines"][1:]}))
    words = ["configs/sweeps/task_groups.yaml", "--group-by", str(runs), "--groups", "2"]
    assert sweep.command([*words, "--out", str(tmp_path / "new.yaml")]) == 2
    error = capsys.readouterr().err
    assert NAMES[2] in error and "RoundRobinTaskSampler" in error
    assert not (tmp_path / "new.yaml").exists()


def test_an_observer_without_relations_writes_nothing(tmp_path):
    class Trainer:
        def relations(self):
            return {}

        @property
        def observers(self):
            return (self,)

    save_relations(Trainer(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_sweep_of_the_groups(runs, tmp_path, capsys):
    template = "configs/sweeps/task_groups.yaml"
    out = tmp_path / "groups.yaml"
    words = [template, "--group-by", str(runs), "--out", str(out)]
    assert sweep.command([*words, "--groups", "2"]) == 0
    assert "group 0: kind of tree, kind of leaf" in capsys.readouterr().out
    content = yaml.safe_load(out.read_text())
    with open(template) as file:
        expected = yaml.safe_load(file)
    assert content == {**expected, "groups": [[0, 1], [2]]}
    assert sweep.command([str(out), "--dry-run"]) == 0

    def refused(*argv):
        code = sweep.command(list(map(str, argv)))
        return code, capsys.readouterr().err

    assert "exists" in refused(*words, "--groups", "2")[1]
    fresh = [*words[:-1], tmp_path / "other.yaml"]
    assert refused(*fresh, "--groups", "3")[0] == 2
    assert "task_groups" in refused("configs/sweeps/demo.yaml", *fresh[1:])[1]
    assert "--out" in refused(*words[:3])[1]
    assert (
        "TASK_GRADIENTS" in refused(template, "--group-by", tmp_path / "out/alone01", *fresh[3:])[1]
    )
