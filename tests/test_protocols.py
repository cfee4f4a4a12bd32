"""Every protocol from training to the evaluation on what was not trained on."""

import pytest

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from tests.conftest import TASKS, toy_class

SINGLE = ("DATASET.SUBSAMPLE_TASKS", "task2")
METHODS = [name for name in ("CoOp", "CoCoOp", "CoT", "MTCoOp") if name in TRAINER_REGISTRY]


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
    assert base["tasks"][0]["total"] + new["tasks"][0]["total"] == 897
    assert new["status"] == "complete"


@pytest.mark.parametrize("method", METHODS)
def test_cross_dataset(run, build, tmp_path, method):
    """From one task to a suite: what was learned on the one is tested on every task."""
    trained = run(method, *SINGLE, flags=("--protocol", "cross_dataset"))
    flags = evaluating(tmp_path / "run", "cross_dataset")
    tested = run(method, output=tmp_path / "tested", flags=flags)
    assert [task["name"] for task in tested["tasks"]] == [task.name for task in TASKS]
    assert {task["metric"] for task in tested["tasks"]} == {"overall_acc"}
    assert {**tested["tasks"][2], "id": 0} == trained["tasks"][0]
    alone = run(method, "DATASET.SUBSAMPLE_TASKS", "task0", output=tmp_path / "one", flags=flags)
    assert alone["tasks"][0] == tested["tasks"][0]


@pytest.mark.parametrize("method", METHODS)
def test_domain_generalization(run, shifted, tmp_path, method):
    """To the same classes in a dataset that has test images only."""
    trained = run(method, *SINGLE, flags=("--protocol", "domain_generalization"))
    flags = evaluating(tmp_path / "run", "domain_generalization")
    tested = run(method, output=tmp_path / "tested", flags=flags, dataset=shifted)
    assert tested["protocol"]["suite"] == "ToyShifted"
    assert tested["tasks"] == trained["tasks"]  # they are the same images


def test_a_suite_without_its_task_is_named(run, tmp_path):
    """A run on another suite has a folder per task; one that lacks a task is no single run."""
    run("CoOp", flags=("--protocol", "cross_dataset"))
    folder = tmp_path / "run"
    for path in (folder / "task2" / "prompt_learner").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"there is no checkpoint .*task2"):
        run("CoOp", output=tmp_path / "x", flags=evaluating(folder, "cross_dataset"))
