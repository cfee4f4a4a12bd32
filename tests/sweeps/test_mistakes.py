"""Mistakes in the YAML and on the command line of sweep.py."""

import pytest

import sweep
from tests._sweeps import run


def method(**keys):
    return {"methods": {"m": {"trainer": "CoOp", "config": "configs/coop.yaml", **keys}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [1]}, "grid.yaml: no key named 'seed'; did you mean seeds?"),
        ({"shots": 4}, "grid.yaml: shots takes list or dict; got 4"),
        ({"shots": {4: 200}}, "grid.yaml: shots 4 takes config keys, but holds 200"),
        ({"shots": {4: {"SEED": 3}}}, "grid.yaml: a sweep sets SEED itself"),
        ({"seeds": []}, "grid.yaml: seeds is missing or empty"),
        ({"seeds": [1, 1]}, "grid.yaml: seeds holds a number twice"),
        ({"shots": [0]}, "grid.yaml: shots takes whole numbers, but holds 0"),
        ({"datasets": ["my/trees.yaml"]}, "no dataset configuration file my/trees.yaml"),
        ({"datasets": ["tree"]}, "grid.yaml: no dataset named 'tree'; did you mean trees?"),
        ({"methods": {"m": "CoOp"}}, "method m: expected keys and values, but got 'CoOp'"),
        (method(trianer="x"), "method m: no method key named 'trianer'; did you mean trainer?"),
        (method(trainer="CoOpp"), "method m: no trainer named 'CoOpp'; did you mean CoOp?"),
        (method(trainer=""), "method m: trainer is missing or empty"),
        (method(config="configs/cop.yaml"), "no configuration file configs/cop.yaml; configs hold"),
        (method(opts={"SEED": 3}), "grid.yaml: a sweep sets SEED itself"),
        ({"protocol": "few_shots"}, "grid.yaml: no protocol named 'few_shots'"),
        ({"cluster": {"engine": "slrm"}}, "no engine named 'slrm'; did you mean slurm?"),
        ({"cluster": {"worker": 2}}, "no cluster key named 'worker'; did you mean workers?"),
        ({"cluster": {"workers": "2"}}, "workers takes int; got '2'"),
        ({"report": {"tabel": "x"}}, "no report key named 'tabel'; did you mean table?"),
        ({"cluster": {"jobs": 0}}, "jobs takes a number from 1; got 0"),
        ({"cluster": {"workers": True}}, "workers takes int; got True"),
        ({"protocol": 5}, "protocol takes str; got 5"),
        ({"datasets": [None]}, "no dataset named 'None'"),
        ({"report": {"figure": "curves.xyz"}}, "cannot draw out/curves.xyz"),
        ({"backbones": ["ViT-B/32", "ViT-B-32"]}, "'ViT-B/32' and 'ViT-B-32'"),
        (
            {"methods": {"a b": method()["methods"]["m"], "a/b": method()["methods"]["m"]}},
            "the methods 'a b' and 'a/b' would share the folder out/a-b",
        ),
    ],
)
def test_mistakes_in_the_yaml(place, train, capsys, changes, message):
    code, _, err = run(capsys, **changes)
    assert code == 2 and err.startswith("error: ") and message in err
    assert not train.seen


def test_datasets_may_be_files(place, train, capsys):
    """Relative to the current folder or to the YAML's, as the files of methods; ~ is the home."""
    (place / "mine.yaml").write_text("")
    datasets = ["trees", "mine.yaml", str(place / "configs" / "zs.yaml")]
    code, lines, err = run(capsys, "--dry-run", "--only", "dataset=mine|zs", datasets=datasets)
    commands = [line for line in lines if line.startswith("  python train.py")]
    assert code == 0 and len(commands) == 10, err
    assert "--dataset-config-file mine.yaml --output-dir out/zero-shot/mine/seed1" in commands[0]
    assert any(f"{place}/configs/zs.yaml --output-dir out/zero-shot/zs/" in c for c in commands)
    (place / "trees.yaml").write_text("")
    code, _, err = run(capsys, "--dry-run", datasets=["trees", "trees.yaml"])
    assert code == 2 and "configs/datasets/trees.yaml and trees.yaml would share" in err


def test_methods_that_a_suite_refuses_are_found_before_the_first_run(tmp_path, monkeypatch, capsys):
    """One line per method; the tasks and options are checked without building a model."""
    root = sweep.ROOT
    methods = {
        name: {"trainer": trainer, "config": str(root / "configs/trainers" / file)}
        for name, trainer, file in (
            ("CoOp", "CoOp", "CoOp/tiny_ep50.yaml"),
            ("LP++", "LPPlusPlus", "LPPlusPlus/tiny.yaml"),
            ("DePT", "DePT", "CoOp/tiny_ep50.yaml"),
        )
    }
    suite = {"datasets": [str(root / "configs/datasets/digit_labels.yaml")]}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "run_all", None)  # nothing is started
    code, _, err = run(capsys, methods=methods, **suite)
    assert code == 2 and err.startswith("error: 2 problems:")
    assert err.count("method LP++: ") == err.count("method DePT: ") == 1 and "CoOp:" not in err
    assert err.count("multi_label") >= 2 and not (tmp_path / "out").exists()


def test_keys_without_a_value_are_left_out(place, train, capsys):
    empty = {
        "backbones": None,
        "cluster": {"engine": None, "workers": None, "jobs": None},
        "report": {"table": None, "spread": None},
    }
    code, lines, _ = run(capsys, "--dry-run", **empty)
    assert code == 0 and lines[-1].startswith("5 runs")


def test_a_method_whose_name_is_a_number(place, train, capsys):
    methods = {1: method()["methods"]["m"]}
    code, lines, _ = run(capsys, "--dry-run", "--methods", "1", methods=methods)
    assert code == 0 and lines[-1].startswith("4 runs")


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_mistaken_keys_are_found_before_the_first_run(place, train, capsys, flags):
    code, _, err = run(capsys, *flags, **method(opts={"OPTIM.LRR": 1}))
    assert code == 2 and err.count("OPTIM.LRR") == 1 and "error: method m: no " in err
    assert not train.seen and len(train.read) == (0 if flags else 1)
    assert run(capsys, *flags, **method(opts={"OPTIM.LR": 1}))[0] == 0
    assert len(train.read) == (0 if flags else 1 + 2)  # seeds share theirs


def test_keys_of_a_method_reach_the_runs_that_read_them(place, train, capsys):
    words = ("TRAINER.COOP.N_CTX", "4")
    code, lines, err = run(capsys, "--dry-run", *words)
    commands = [line for line in lines if line.startswith("  python train.py")]
    assert code == 0 and len(commands) == 5, err
    assert [" ".join(words) in line for line in commands] == [
        "--trainer CoOp" in c for c in commands
    ]
    code, _, err = run(capsys, "--dry-run", "TRAINER.MTCOOP.N_CTX", "4")
    assert code == 2 and "TRAINER.MTCOOP.N_CTX has no effect" in err and "COOP, ZEROSHOT" in err
    code, _, err = run(capsys, "--dry-run", "--methods", "zero-shot", *words)
    assert code == 2 and "TRAINER.COOP.N_CTX has no effect: no chosen method reads it" in err


def test_keys_of_a_node_that_only_some_methods_read(place, train, capsys):
    """DePT reads the node of the method that it is added to; shots may have keys of their own."""
    (place / "configs" / "kg.yaml").write_text("TRAINER: {DEPT: {METHOD: KgCoOp}}\n")
    methods = {
        "c": {"trainer": "CoOp", "config": "configs/coop.yaml"},
        "d": {"trainer": "DePT", "config": "configs/kg.yaml"},
    }
    shots = {1: {"TRAINER.COOP.CSC": True}}
    words = ("--dry-run", "TRAINER.COOP.N_CTX", "4")
    code, lines, err = run(capsys, *words, methods=methods, shots=shots)
    commands = [line for line in lines if line.startswith("  python train.py")]
    assert code == 0 and commands, err
    for command in commands:
        own = "--trainer CoOp" in command
        assert ("COOP.N_CTX 4" in command) == own and ("COOP.CSC True" in command) == own


def test_an_override_may_choose_the_method_whose_node_is_read(place, train, capsys):
    methods = {"d": {"trainer": "DePT", "config": "configs/coop.yaml"}}
    words = ("TRAINER.DEPT.METHOD", "KgCoOp", "TRAINER.KGCOOP.N_CTX", "4")
    code, lines, err = run(capsys, "--dry-run", *words, methods=methods)
    assert code == 0 and "TRAINER.KGCOOP.N_CTX 4" in lines[-2], err


def test_mistakes_on_the_command_line(place, train, capsys):
    code, _, err = run(capsys, "--dry-run", "TRAINER.COOP.N_CTX", "4", "TRAINER", "5")
    assert code == 2 and "TRAINER" in err and "Traceback" not in err
    assert "'OPTIM.LR' has no value" in run(capsys, "OPTIM.LR")[2]
    assert "a sweep sets DATASET.NUM_SHOTS itself" in run(capsys, "DATASET.NUM_SHOTS", "2")[2]
    assert "there is no configuration file" in run_missing(capsys)
    code, _, err = run(capsys, "--cluster", "local", "--workers", "-1")
    assert code == 2 and "workers is -1" in err
    assert sweep.command(["grid.yaml", "--dryrun"]) == 2
    assert "did you mean --dry-run" in capsys.readouterr().err


def run_missing(capsys):
    assert sweep.command(["nowhere.yaml"]) == 2
    return capsys.readouterr().err
