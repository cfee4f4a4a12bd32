"""The runs that each protocol makes of a sweep, and the keys that it needs."""

import re
from pathlib import Path

import pytest
import yaml

import datasets  # noqa: F401  (its classes are imported when their names are looked up)
import sweep
from dassl.config import get_cfg_default
from results.read import read_run
from sweeps.check import has_several_tasks
from sweeps.plan import Sweep
from sweeps.planned_run import PlannedRun
from sweeps.run import report
from tests._records import write
from tests._sweeps import GRID, run

ROOT = Path(sweep.__file__).parent
TASKS = "DATASET.SUBSAMPLE_TASKS"
JOINT = {**GRID["methods"], "CoOp": {**GRID["methods"]["CoOp"], "trainer": "MTCoOp"}}
TREE = (("kind of tree", "", 50.0),)


def words_of(place, train, capsys, protocol, **changes):
    """The arguments of train.py by output folder, in the order of the runs."""
    (place / "configs/protocols").mkdir()
    (place / f"configs/protocols/{protocol}.yaml").write_text("")
    code, _, errors = run(capsys, protocol=protocol, **changes)
    assert code == 0, errors
    return {args[args.index("--output-dir") + 1]: args for args in train.seen}


def value_of(args, key):
    """The value that counts: the last one."""
    return args[len(args) - args[::-1].index(key)]


def test_targets_start_from_the_source_of_their_seed(place, train, capsys):
    source = {"tasks": [0, 2], "shots": 16, "opts": {"OPTIM.MAX_EPOCH": 50}}
    seen = words_of(
        *(place, train, capsys, "transfer"),
        methods=JOINT,
        source=source,
        targets=[1],
        shots=[1, 4],
        seeds=[1, 2],
    )
    assert list(seen)[:6] == [
        "out/zero-shot/trees/seed1",
        "out/CoOp/trees_source/seed1",  # one training for all numbers of shots
        "out/CoOp/trees_1shots/from_scratch/seed1",
        "out/CoOp/trees_1shots/from_source/seed1",
        "out/CoOp/trees_source/seed2",
        "out/CoOp/trees_1shots/from_scratch/seed2",
    ]
    assert len(seen) == 1 + 2 + 2 * 2 * 2
    first = seen["out/CoOp/trees_source/seed1"]
    assert (value_of(first, TASKS), value_of(first, "DATASET.NUM_SHOTS")) == ("task0+2", "16")
    assert value_of(first, "OPTIM.MAX_EPOCH") == "50" and "--init-from" not in first
    for seed in (1, 2):
        moved = seen[f"out/CoOp/trees_4shots/from_source/seed{seed}"]
        assert value_of(moved, "--init-from") == f"out/CoOp/trees_source/seed{seed}"
        assert (value_of(moved, TASKS), value_of(moved, "OPTIM.MAX_EPOCH")) == ("task1", "5")
        scratch = seen[f"out/CoOp/trees_4shots/from_scratch/seed{seed}"]
        assert [w for w in moved if w not in scratch and w not in moved[:8]] == [
            *("--init-from", f"out/CoOp/trees_source/seed{seed}")
        ]
    assert value_of(seen["out/zero-shot/trees/seed1"], TASKS) == "task1"


@pytest.mark.parametrize(
    ("source", "trainer", "message"),
    [
        (
            {"opts": {"TRAINER.MTCOOP.N_CTX": 4}},
            "MTCoOp",
            "method CoOp: the source would be trained with TRAINER.MTCOOP.N_CTX 4, the targets "
            "with 16",
        ),
        ({"tasks": [0, 2]}, "CoOp", "method CoOp: CoOp would train each task of source separately"),
        ({"tasks": [2], "opts": {"TRAINER.COOP.PREC": "fp32"}}, "CoOp", ""),
    ],
)
def test_a_source_that_no_target_can_start_from(place, train, capsys, source, trainer, message):
    (place / "configs/protocols").mkdir()
    (place / "configs/protocols/transfer.yaml").write_text("")
    method = {"trainer": trainer, "config": "configs/coop.yaml"}
    keys = {"source": {"shots": 4, **source}, "targets": [1], "methods": {"CoOp": method}}
    code, _, err = run(capsys, protocol="transfer", **keys)
    assert code == (2 if message else 0) and message in err and bool(train.seen) == (not message)


@pytest.mark.parametrize(
    ("dataset", "choice", "several"),
    [
        ("Digits7", "all", True),
        ("Digits7", "base", True),
        ("Digits7", "not_task1", True),
        ("Digits7", "not_task0+1+2+3+4+5", False),
        ("Digits7", "task1", False),
        ("DigitLabels", "new", False),  # one of three
        ("OxfordPets", "all", False),
        ("TaskColumns", "task0+2", True),  # only the data tell how many there are
    ],
)
def test_which_choices_hold_several_tasks(dataset, choice, several):
    cfg = get_cfg_default().with_values(
        {"DATASET.NAME": dataset, "DATASET.SUBSAMPLE_TASKS": choice}
    )
    assert has_several_tasks(cfg) is several


def test_tasks_train_together_in_groups_and_alone(place, train, capsys):
    seen = words_of(place, train, capsys, "task_groups", groups=[[2, 0], [1]], shots=[4], seeds=[1])
    assert {folder: TASKS in args and value_of(args, TASKS) for folder, args in seen.items()} == {
        "out/zero-shot/trees/seed1": False,
        "out/CoOp/trees_4shots/all/seed1": False,
        "out/CoOp/trees_4shots/task0+2/seed1": "task0+2",
        "out/CoOp/trees_4shots/task0/seed1": "task0",
        "out/CoOp/trees_4shots/task1/seed1": "task1",  # alone, and its group
        "out/CoOp/trees_4shots/task2/seed1": "task2",
    }


@pytest.mark.slow
def test_transfer_on_digits7(tmp_path, capsys):
    """From four questions to three, one epoch each: all runs complete, and stand in the table."""
    content = yaml.safe_load((ROOT / "configs/sweeps/transfer.yaml").read_text())
    content["source"] |= {"shots": 1, "opts": {"OPTIM.MAX_EPOCH": 1}}
    content |= {"shots": {1: {"OPTIM.MAX_EPOCH": 1}}, "seeds": [1], "output": str(tmp_path / "out")}
    content["methods"].pop("CoOp-MT")
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(content))
    assert sweep.command([str(tmp_path / "short.yaml"), "--cluster", "debug"]) == 0
    table = (tmp_path / "out/table.md").read_text()
    cells = r"\| SoftCPT-NATA \| 1 \| (.+?) \| [\d.*]+ \| [\d.*]+ \| [\d.*]+ \| [+−\d.]+.* \|"
    tasks = ["kind of strokes", "prime or not", "multiple of three", "mean"]
    assert re.findall(cells, table) == tasks
    assert "not counted" not in capsys.readouterr().out


@pytest.mark.parametrize("protocol", ["transfer", "task_groups", "leave_one_task_out"])
def test_no_few_shot_curve_says_why_in_words_for_every_protocol(protocol, tmp_path, capsys):
    write(tmp_path / "run", name=protocol, tasks=TREE)
    planned = PlannedRun("CoOp-CA", "trees", 4, 1, tmp_path / "run", ())
    wanted = Sweep(tmp_path, (planned,), ("CoOp-CA",), {"figure": tmp_path / "curves.png"}, {})
    report(wanted, [read_run(tmp_path / "run")])
    out = capsys.readouterr().out
    assert "the runs of this protocol have no few-shot curve" in out
    assert not (tmp_path / "curves.png").exists()


def test_backbones_and_base_to_new(place, train, capsys):
    (place / "configs/protocols").mkdir()
    (place / "configs/protocols/base_to_new.yaml").write_text("")
    changes = {"backbones": ["RN50", "ViT-B/16"], "protocol": "base_to_new", "shots": [4]}
    code, lines, _ = run(capsys, seeds=[1], **changes)
    assert code == 0 and len(train.seen) == 8
    folders = [args[args.index("--output-dir") + 1] for args in train.seen]
    assert folders[4:6] == [
        "out/CoOp/RN50/trees_4shots/seed1",
        "out/CoOp/RN50/trees_4shots_new/seed1",
    ]
    assert folders[3] == "out/zero-shot/ViT-B-16/trees_new/seed1"
    base, new = train.seen[4:6]
    assert base[base.index("--backbone") + 1] == "RN50" and "--eval-only" not in base
    assert new[new.index("--model-dir") + 1] == folders[4] and "--eval-only" in new
    assert new[-2:] == ["DATASET.SUBSAMPLE_CLASSES", "new"]
    assert base[base.index("--protocol") + 1] == new[new.index("--protocol") + 1] == "base_to_new"
    assert "--eval-only" not in train.seen[3]  # zero-shot has nothing to load
    assert lines[6].startswith("[6/8] CoOp, RN50, trees, 4 shots, seed 1, new classes ... complete")


def test_each_task_is_tested_with_prompts_of_the_others(place, train, capsys):
    (place / "configs/protocols").mkdir()
    (place / "configs/protocols/leave_one_task_out.yaml").write_text("")
    changes = {"protocol": "leave_one_task_out", "held_out": [0, 2], "shots": [4], "seeds": [1]}
    code, lines, _ = run(capsys, **changes)
    assert code == 0
    seen = {args[args.index("--output-dir") + 1]: args for args in train.seen}
    assert list(seen) == [
        "out/zero-shot/trees/task0/seed1",
        "out/zero-shot/trees/task2/seed1",
        "out/CoOp/trees_4shots/task0/training/seed1",
        "out/CoOp/trees_4shots/task0/seed1",
        "out/CoOp/trees_4shots/task2/training/seed1",
        "out/CoOp/trees_4shots/task2/seed1",
    ]
    training, test = list(seen.items())[-2:]
    assert training[1][-2:] == ["DATASET.SUBSAMPLE_TASKS", "not_task2"]
    assert test[1][-2:] == ["DATASET.SUBSAMPLE_TASKS", "task2"]
    assert test[1].count("DATASET.SUBSAMPLE_TASKS") == 1
    assert test[1][test[1].index("--model-dir") + 1] == training[0]
    assert "--eval-only" not in seen["out/zero-shot/trees/task0/seed1"]  # nothing to load
    assert "held-out task 2" in lines[6]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"protocol": "leave_one_task_out"}, "held_out.*go together"),
        ({"protocol": "transfer", "source": {"shots": 4}}, "targets.*go together"),
        ({"protocol": "transfer", "targets": [0]}, "source.*go together"),
        ({"protocol": "transfer", "source": {"tasks": [1]}, "targets": [0]}, "source needs shots"),
        ({"protocol": "transfer", "source": {"shot": 4}, "targets": [0]}, "did you mean shots"),
        ({"protocol": "transfer", "source": {"shots": 4}, "targets": [0, 0]}, "targets.*0, 0"),
        ({"protocol": "task_groups", "groups": [0, 1]}, "groups takes lists.*0, 1"),
        ({"protocol": "task_groups", "groups": [[0], [2]]}, "every task.*0.*2"),
        ({"protocol": "task_groups", "groups": [[0, 1], [1]]}, "different numbers.*0, 1, 1"),
        ({"held_out": [1]}, "held_out.*go together"),
        ({"protocol": "leave_one_task_out", "held_out": [0, 0]}, "different numbers.*0, 0"),
        ({"protocol": "leave_one_task_out", "held_out": [-1]}, "different numbers.*-1"),
        ({"protocol": "leave_one_task_out", "held_out": [[1]]}, "different numbers.*1"),
        ({"protocol": "task_groups", "groups": [[{}]]}, "different numbers"),
        ({"protocol": "transfer", "source": {"shots": True}, "targets": [0]}, "shots takes int"),
        (
            {
                "protocol": "leave_one_task_out",
                "held_out": [0],
                "overrides": {"TEST.CALIBRATION": "task"},
            },
            "TEST.CALIBRATION task; set run",
        ),
        ({"protocol": "base_to_new", "overrides": {"TEST.TASK_GIVEN": False}}, "leave it True"),
    ],
)
def test_keys_of_protocols_are_checked(place, train, capsys, changes, message):
    (place / "configs/protocols").mkdir()
    for protocol in ("base_to_new", "leave_one_task_out", "transfer", "task_groups"):
        (place / f"configs/protocols/{protocol}.yaml").write_text("")
    code, _, errors = run(capsys, **changes)
    assert code == 2 and not train.seen and re.search(message, errors)


LEFT_OUT = {"protocol": "leave_one_task_out", "held_out": [1]}
METHODS = GRID["methods"]


def with_opts(name, **opts):
    """The methods of the grid, one of them with other keys."""
    keys = {f"TEST.{key}": value for key, value in opts.items()}
    return {"methods": {**METHODS, name: {**METHODS[name], "opts": keys}}}


@pytest.mark.parametrize(
    "changes, message",
    [
        (with_opts("CoOp", CALIBRATION="task"), "CoOp, trees, 1 shot, .*CALIBRATION task; set run"),
        ({"shots": {1: None, 4: {"TEST.CALIBRATION": "task"}}}, "CoOp, trees, 4 shots, .*set run"),
        (with_opts("CoOp", TASK_GIVEN=False), "CoOp, trees, 1 shot, .*TASK_GIVEN.*leave it True"),
        ({"shots": {4: {"TEST.TASK_GIVEN": False}}}, "CoOp, trees, 4 shots, .*leave it True"),
        (with_opts("zero-shot", CALIBRATION="task"), ""),  # no training that lacks the task
        ({**with_opts("CoOp", CALIBRATION="run"), "shots": {4: {"TEST.CALIBRATION": "task"}}}, ""),
    ],
)
def test_what_one_test_cannot_be_fitted_on_is_refused(place, train, capsys, changes, message):
    """The keys of a method and of a number of shots, as those of all runs; the last one counts."""
    (place / "configs/protocols").mkdir()
    (place / "configs/protocols/leave_one_task_out.yaml").write_text("")
    code, _, errors = run(capsys, "--dry-run", **LEFT_OUT, **changes)
    assert code == (2 if message else 0) and not train.seen and re.search(message, errors)


def test_new_classes_are_not_tested_if_the_training_failed(place, train, capsys):
    (place / "configs/protocols").mkdir()
    (place / "configs/protocols/base_to_new.yaml").write_text("")
    train.fails = {"out/CoOp/trees_1shots/seed1": RuntimeError("x")}
    code, lines, _ = run(capsys, shots=[1], seeds=[1], protocol="base_to_new")
    assert code == 1
    assert "it needs out/CoOp/trees_1shots/seed1, which failed" in lines[-1]
    write(place / "out/CoOp/trees_1shots/seed1", status="failed", run={"error": "x"})
    train.seen.clear()  # the zero-shot runs are complete, and looked at again
    code, lines, _ = run(capsys, shots=[1], seeds=[1], protocol="base_to_new")
    assert code == 1 and [args[1] for args in train.seen] == ["ZeroshotCLIP"] * 2
    assert "it needs out/CoOp/trees_1shots/seed1, which failed" in lines[-1]
