"""Suites of several datasets, and the choice of tasks and classes."""

import json
from pathlib import Path

import pytest

from dassl.utils import UserError
from datasets._core.base import TaskGroup
from tests.datasets.folders import Both, Pets, Plants, paths


def test_base_and_new_classes_of_a_single_dataset(cfg):
    whole = Pets(cfg)
    cfg.DATASET.SUBSAMPLE_CLASSES = "base"
    base = Pets(cfg)
    cfg.DATASET.SUBSAMPLE_CLASSES = "new"
    new = Pets(cfg)
    assert base.classnames == ["cat", "dog"] and new.classnames == ["owl"]
    assert paths(base.test) == paths(d for d in whole.test if d.label < 2)
    assert paths(new.test) == paths(d for d in whole.test if d.label == 2)
    assert {d.label for d in new.train_x} == {0} and {d.classname for d in new.val} == {"owl"}
    assert len({whole.identity.draw, base.identity.draw, new.identity.draw}) == 3


def test_classes_are_chosen_after_the_shots(cfg):
    cfg.DATASET.NUM_SHOTS = 2
    all_shots = Pets(cfg).train_x
    cfg.DATASET.SUBSAMPLE_CLASSES = "new"
    assert paths(Pets(cfg).train_x) == paths(d for d in all_shots if d.label == 2)


def test_suite_puts_tasks_side_by_side(cfg, root):
    cfg.DATASET.NUM_SHOTS = 2
    both, pets, plants = Both(cfg), Pets(cfg), Plants(cfg)
    assert both.space.tasks == (*pets.space.tasks, *plants.space.tasks)
    assert both.classnames == ["cat", "dog", "owl", "elm", "fir"]
    for name in ("train_x", "val", "test"):
        assert paths(getattr(both, name)) == paths([*getattr(pets, name), *getattr(plants, name)])
    assert [d.task for d in both.train_x] == [0] * 6 + [1] * 4
    assert {d.label for d in both.test if d.task == 1} == {0, 1}
    assert both.only_task(1).test == plants.test
    assert both.split == "own" and both.identity.draw not in (
        pets.identity.draw,
        plants.identity.draw,
    )
    assert both.space.tasks[1].group == "green"


def test_suite_names_all_kinds_of_split(cfg, root):
    items = [["elm/00.jpg", 0, "elm"], ["fir/00.jpg", 1, "fir"]]
    (root / "plants" / "split_zhou_Plants.json").write_text(
        json.dumps({"train": items, "val": items, "test": items})
    )
    assert Both(cfg).split == "own+zhou"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("all", ["kind of pet", "plant"]),
        ("base", ["kind of pet"]),
        ("new", ["plant"]),
        ("task0", ["kind of pet"]),
        ("task1", ["plant"]),
        ("not_task0", ["plant"]),
        ("not_task1", ["kind of pet"]),
        ("task0+1", ["kind of pet", "plant"]),
    ],
)
def test_tasks_of_a_suite_can_be_chosen(cfg, choice, names):
    cfg.DATASET.SUBSAMPLE_TASKS, cfg.DATASET.SUBSAMPLE_CLASSES = choice, "new"
    suite = Both(cfg)
    assert [task.name for task in suite.space.tasks] == names
    classes = {"kind of pet": ["owl"], "plant": ["fir"]}
    assert suite.classnames == [c for name in names for c in classes[name]]
    assert sorted({d.task for d in suite.test}) == list(range(len(names)))
    for d in suite.test:
        assert f"/{d.classname}/" in d.impath and Path(d.impath).is_file()


def test_suites_can_be_members(cfg, root):
    class Nested(TaskGroup):
        members = (Plants, Both)

    nested = Nested(cfg)
    assert [task.name for task in nested.space.tasks] == ["plant", "kind of pet", "plant"]
    assert {d.task for d in nested.test} == {0, 1, 2}
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "all"


@pytest.mark.parametrize("wrong", ["task7", "task0+7", "task0+", "0+1"])
def test_suite_says_which_tasks_there_are(cfg, wrong):
    cfg.DATASET.SUBSAMPLE_TASKS = wrong
    with pytest.raises(UserError, match="known: all, base, new, task0 to task1, task<i>"):
        Both(cfg)


def test_single_class_has_no_new_half(cfg, root):
    for name in ("dog", "owl"):
        (root / "pets" / "images" / name).rename(root / name)
    cfg.DATASET.SUBSAMPLE_CLASSES = "new"
    with pytest.raises(UserError, match="task 'kind of pet' has a single class"):
        Pets(cfg)
