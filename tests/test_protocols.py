"""Every protocol from training to the evaluation on what was not trained on."""

import pytest

import parse_test_res
import train
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from datasets._core.mini import make_mini
from tests.conftest import TASKS, backbone_of, toy_class
from tests.trainers._methods import preset

SINGLE = ("DATASET.SUBSAMPLE_TASKS", "task2")
METHODS = [name for name in ("CoOp", "CoCoOp", "CoT", "MTCoOp") if name in TRAINER_REGISTRY]


SHIFTED = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")


def evaluating(folder, protocol):
    return ("--eval-only", "--model-dir", str(folder), "--protocol", protocol)


@pytest.fixture
def shifted(toy):
    """The classes of the toy suite's last task, with test images alone."""

    class ToyShifted(toy_class("ToyShifted", toy)):
        """Test images only."""

        def __init__(self, cfg):
            super().__init__(cfg)
            kept = self.only_task(2)
            DatasetBase.__init__(self, test=kept.test, space=kept.space, split="toy")

    DATASET_REGISTRY.register()(ToyShifted)
    yield "ToyShifted"
    DATASET_REGISTRY._classes.pop("ToyShifted")


@pytest.mark.parametrize("method", METHODS)
def test_few_shot(run, method):
    content = run(method, "DATASET.NUM_SHOTS", 1, flags=("--protocol", "few_shot"))
    protocol = content["protocol"]
    assert (protocol["name"], protocol["classes"], protocol["shots"]) == ("few_shot", "all", 1)
    assert [task["name"] for task in content["tasks"]] == [task.name for task in TASKS]


@pytest.mark.parametrize("method", METHODS)
def test_base_to_new(run, tmp_path, monkeypatch, method):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # the digits' draws
    digits = ("DATASET.SUBSAMPLE_TASKS", "task0", "DATASET.NUM_SHOTS", 1)
    how = dict(dataset="Digits7")
    base = run(method, *digits, **how, flags=("--protocol", "base_to_new"))
    new = run(
        method,
        *digits,
        *("DATASET.SUBSAMPLE_CLASSES", "new"),
        output=tmp_path / "new",
        flags=evaluating(tmp_path / "run", "base_to_new"),
        **how,
    )
    assert (base["protocol"]["classes"], new["protocol"]["classes"]) == ("base", "new")
    assert {base["protocol"]["name"], new["protocol"]["name"]} == {"base_to_new"}
    rules = {base["protocol"]["metric_rule"], new["protocol"]["metric_rule"]}
    assert rules == {"overall_acc"}  # as in CoCoOp's tables
    assert base["tasks"][0]["total"] + new["tasks"][0]["total"] == 897
    assert new["status"] == "complete" and "trained_on" not in new["protocol"]


@pytest.mark.parametrize("method", ["MTCoOp", "MTCoOpHard"])
def test_leave_one_task_out(run, tmp_path, method):
    held_out = TASKS[1].name
    trained = run(
        method,
        *("DATASET.SUBSAMPLE_TASKS", "not_task1"),
        flags=("--protocol", "leave_one_task_out"),
    )
    assert [task["name"] for task in trained["tasks"]] == [
        task.name for task in TASKS if task.name != held_out
    ]
    tested = run(
        method,
        *("DATASET.SUBSAMPLE_TASKS", "task1"),
        output=tmp_path / "tested",
        flags=evaluating(tmp_path / "run", "leave_one_task_out"),
    )
    assert [task["name"] for task in tested["tasks"]] == [held_out]


def test_a_held_out_task_has_the_temperature_of_the_training(run, tmp_path):
    calibrated = ("TEST.CALIBRATION", "run")
    trained = run(
        "MTCoOpHard",
        *("DATASET.SUBSAMPLE_TASKS", "not_task1", *calibrated),
        flags=("--protocol", "leave_one_task_out"),
    )
    tested = run(
        "MTCoOpHard",
        *("DATASET.SUBSAMPLE_TASKS", "task1", *calibrated),
        output=tmp_path / "tested",
        flags=evaluating(tmp_path / "run", "leave_one_task_out"),
    )
    first, section = trained["calibration"], tested["calibration"]
    assert first["fitted_on"] == "val" and section["fitted_on"] == "stored"
    (task,) = section["tasks"]
    assert (task["temperature"], task["fitted_images"]) == (first["tasks"][0]["temperature"], 0)
    assert task["nll"] != task["nll_before"]


@pytest.mark.parametrize(
    "method, options, reason",
    [
        ("CoOp", (), "each task separately"),
        ("MTCoOp", ("TRAINER.MTCOOP.TASK_CSC", "True"), "single classes or tasks"),
        ("MTCoOpHard", ("TRAINER.MTCOOPH.CSC", "True"), "single classes or tasks"),
        ("MTCoOpHard", ("TRAINER.MTCOOPH.TSC", "True"), "single classes or tasks"),
    ],
)
def test_values_of_single_tasks_cannot_be_tested_on_a_held_out_one(run, method, options, reason):
    with pytest.raises(UserError, match=reason):
        run(
            method,
            *("DATASET.SUBSAMPLE_TASKS", "not_task1"),
            *options,
            flags=("--protocol", "leave_one_task_out"),
        )


@pytest.mark.parametrize("method", METHODS)
def test_cross_dataset(run, build, tmp_path, method):
    """From one task to a suite: what was learned on the one is tested on every task."""
    trained = run(method, *SINGLE, flags=("--protocol", "cross_dataset"))
    flags = evaluating(tmp_path / "run", "cross_dataset")
    tested = run(method, output=tmp_path / "tested", flags=flags)
    assert [task["name"] for task in tested["tasks"]] == [task.name for task in TASKS]
    assert {task["metric"] for task in tested["tasks"]} == {"overall_acc"}
    assert {**tested["tasks"][2], "id": 0} == trained["tasks"][0]
    assert tested["protocol"]["trained_on"] == "task2" and "trained_on" not in trained["protocol"]
    alone = run(method, "DATASET.SUBSAMPLE_TASKS", "task0", output=tmp_path / "one", flags=flags)
    assert alone["tasks"][0] == tested["tasks"][0]


def test_an_evaluation_has_the_shots_and_the_seed_of_the_training(run, tmp_path):
    run("CoOp", *SINGLE, "DATASET.NUM_SHOTS", 2, "SEED", 5)
    flags = evaluating(tmp_path / "run", "few_shot")
    tested = run("CoOp", *SINGLE, "DATASET.NUM_SHOTS", 1, output=tmp_path / "tested", flags=flags)
    protocol = tested["protocol"]
    assert (protocol["shots"], protocol["seed"]) == (2, 5) and "trained_on" not in protocol


@pytest.mark.parametrize("method", METHODS)
def test_domain_generalization(run, shifted, tmp_path, method):
    """To the same classes in a dataset that has test images only."""
    trained = run(method, *SINGLE, flags=("--protocol", "domain_generalization"))
    flags = evaluating(tmp_path / "run", "domain_generalization")
    tested = run(method, output=tmp_path / "tested", flags=flags, dataset=shifted)
    assert tested["protocol"]["suite"] == "ToyShifted"
    assert tested["protocol"]["trained_on"] == f"{trained['protocol']['suite']} task2"
    assert tested["tasks"] == trained["tasks"]  # they are the same images


def test_a_suite_without_its_task_is_named(run, tmp_path):
    """A run on another suite has a folder per task; one that lacks a task is no single run."""
    run("CoOp", flags=("--protocol", "cross_dataset"))
    folder = tmp_path / "run"
    for path in (folder / "task2" / "prompt_learner").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"there is no checkpoint .*task2"):
        run("CoOp", output=tmp_path / "x", flags=evaluating(folder, "cross_dataset"))


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    """General-10 and the ImageNets: all of their classes, four images of each."""
    root = tmp_path_factory.mktemp("mini")
    for name in ("General10", "ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"):
        make_mini(name, root, per_class=4)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "protocol", "source", "targets"),
    [
        ("CoT", "few_shot", "general10", ()),
        ("CoT", "base_to_new", "general10", ("general10",)),
        ("CoT", "cross_dataset", "caltech101", ("general10",)),
        ("CoOp", "domain_generalization", "imagenet", SHIFTED),  # 1,000 prompts, not 1,000 an image
    ],
)
def test_published_datasets(miniatures, tmp_path, capsys, method, protocol, source, targets):
    """Miniatures in the published layouts, trained on and evaluated by commands alone."""

    def content_of(dataset, output, *words):
        words = [
            *("--trainer", method, "--config-file", f"trainers/{method}/tiny_ep50.yaml"),
            *("--dataset-config-file", f"datasets/{dataset}.yaml", "--root", str(miniatures)),
            *("--output-dir", str(tmp_path / output), "--seed", "1", "--quiet", *words),
            *("--protocol", protocol, "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1"),
        ]
        yaml = [str(train.CONFIGS / w) if w.endswith(".yaml") else w for w in words]
        return train.main(train.parse_args(yaml))

    trained = content_of(source, "trained")
    assert trained["protocol"]["name"] == protocol and trained["status"] == "complete"
    for target in targets:
        new = ("DATASET.SUBSAMPLE_CLASSES", "new") if protocol == "base_to_new" else ()
        load = ("--eval-only", "--model-dir", str(tmp_path / "trained"))
        tested = content_of(target, f"on {target}", *load, *new)
        assert tested["protocol"]["name"] == protocol and tested["status"] == "complete"
        assert len(tested["tasks"]) == (10 if target == "general10" else 1)
    if protocol == "base_to_new":
        parse_test_res.command([str(tmp_path), "--format", "text"])
        cells = mean_row(capsys.readouterr().out)
        base, new, mean = map(float, cells[-6:-3])  # before learned values, seconds and MB
        assert mean == pytest.approx(2 * base * new / (base + new), abs=0.2)


def mean_row(tables):
    """The cells of the line of means in the table from base to new."""
    lines = tables.partition("base to new")[2].splitlines()
    return next(line for line in lines if line.startswith("mean")).split()


@pytest.fixture(scope="module")
def plant6(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant6")
    make_mini("Plant6", folder, per_class=4)
    return folder


IN_TOWERS = ("VPT", "IVLP", "MaPLe", "PromptSRC", "TCP", "CLIPLoRA", "MMA", "TwoStage")
HEADS = ("TaskRes", "LPPlusPlus", "DePT")


@pytest.mark.slow
@pytest.mark.parametrize("method", (*IN_TOWERS, *HEADS))
def test_presets_on_a_published_suite(plant6, tmp_path, method):
    """A method's preset with one epoch and an untrained tower, on Plant-6's original layout."""
    words = ["--trainer", method, "--config-file", str(preset(method)), "--root", str(plant6)]
    words += ["--dataset-config-file", str(train.CONFIGS / "datasets/plant6.yaml"), "--quiet"]
    words += ["--protocol", "few_shot", "--seed", "1", "--output-dir", str(tmp_path / "run")]
    words += ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "FEATURES.DIR", str(plant6)]
    words += ["MODEL.BACKBONE.NAME", backbone_of(method)]
    content = train.main(train.parse_args(words))
    assert content["status"] == "complete"
    assert len(content["tasks"]) == 6 and all(task["total"] for task in content["tasks"])
