"""DATASET.TASK_NAMES: names of tasks reworded in prompts, for an ablation."""

import json

import pytest

import train
from dassl.config import get_cfg_default
from dassl.data import DATASET_REGISTRY, Task, TaskSpace
from dassl.utils import UserError
from datasets._core.mini.layouts import FASHION_TASKS
from datasets._core.task_names import RANDOM_WORDS, VARIANTS, name_tasks
from results.aggregate import aggregate
from results.read import read_run
from tests.conftest import SMALL
from tests.datasets.folders import load


def digits(choice, seed=1):
    """The tasks of Digits7 with these names."""
    cfg = get_cfg_default()
    cfg.merge_from_dict({"SEED": seed, "DATASET": {"NAME": "Digits7", "TASK_NAMES": choice}})
    return DATASET_REGISTRY.get("Digits7")(cfg)


TRUE = [member.task_name for member in DATASET_REGISTRY.get("Digits7").members]


def in_prompts(choice, seed=1):
    """The names of Digits7's tasks in prompts."""
    tasks = name_tasks([Task(name, ("a", "b")) for name in TRUE], choice, seed)
    return TaskSpace(tuple(tasks)).prompt_names


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_rewords_prompts_and_keeps_the_names_of_results(variant):
    dataset = digits(variant)
    assert dataset.space.tasknames == TRUE
    names = dataset.space.prompt_names
    assert names == in_prompts(variant) and len(set(names)) == len(TRUE)
    assert (names == TRUE) == (variant == "true")


def test_shuffled_gives_each_task_the_name_of_another():
    for seed in range(5):
        names = in_prompts("shuffled", seed)
        assert sorted(names) == sorted(TRUE)
        assert all(name != true for name, true in zip(names, TRUE, strict=True))
    assert len({tuple(in_prompts("shuffled", seed)) for seed in range(5)}) > 1


def test_random_words_are_as_many_as_the_name_has():
    names = in_prompts("random")
    assert {word for name in names for word in name.split()} <= set(RANDOM_WORDS)
    assert [len(name.split()) for name in names] == [max(2, len(t.split())) for t in TRUE]
    assert in_prompts("random", seed=2) != names


def test_variants_are_the_same_in_every_process():
    assert in_prompts("shuffled", seed=3)[:2] == ["odd or even", "prime or not"]
    assert in_prompts("random", seed=3)[:2] == ["cushion guitar", "honey helmet forest"]


def test_a_task_left_out_keeps_the_name_that_it_has_in_the_suite():
    cfg = get_cfg_default()
    options = {"NAME": "Digits7", "TASK_NAMES": "shuffled", "SUBSAMPLE_TASKS": "task2"}
    cfg.merge_from_dict({"SEED": 1, "DATASET": options})
    space = DATASET_REGISTRY.get("Digits7")(cfg).space
    assert space.prompt_names == in_prompts("shuffled")[2:3]


def test_a_mapping_rewords_some_tasks_and_a_list_renames_all():
    space = digits({"odd or even": "parity"}).space
    assert space.tasknames == TRUE
    assert space.prompt_names == ["digit identity", "parity", *TRUE[2:]]
    assert digits(list("abcdefg")).space.tasknames == list("abcdefg")


def test_every_task_of_the_published_suites_has_a_synonym():
    suites = [DATASET_REGISTRY.get(name) for name in ("Digits7", "General10", "Plant6")]
    names = {member.task_name for suite in suites for member in suite.members}
    for name in names | set(FASHION_TASKS):
        (task,) = name_tasks([Task(name, ("a", "b"))], "synonym", 1)
        assert task.name_in_prompts not in ("", name)


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ("synonim", "did you mean synonym"),
        ({"odd and even": "parity"}, "did you mean odd or even"),
        ({"odd or even": " "}, "must give words for 'odd or even'"),
        (("one", "two"), "must name each of the 7 tasks"),
    ],
)
def test_other_values_are_refused(choice, named):
    with pytest.raises(UserError, match=named):
        digits(choice)


def test_synonyms_of_a_strangers_tasks_must_be_given(tmp_path):
    lines = ["image,age group,mood", *(f"{i}.jpg,{i % 2},{i % 3}" for i in range(60))]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    for i in range(60):
        (tmp_path / f"{i}.jpg").write_bytes(b"not looked at")
    with pytest.raises(UserError, match=r"age group.*TASK_NAMES: {age group: other words}"):
        load("TaskColumns", tmp_path, TASK_NAMES="synonym")
    space = load("TaskColumns", tmp_path, TASK_NAMES="shuffled").space
    assert space.prompt_names == ["mood", "age group"]


def test_a_single_task_has_no_other_name_to_get():
    with pytest.raises(UserError, match="single task"):
        name_tasks([Task("mood", ("glad", "sad"))], "shuffled", 1)


def test_runs_with_other_names_are_rows_of_their_own(tmp_path):
    runs = []
    for variant in ("true", "random"):
        folder = tmp_path / variant
        argv = [
            *("--trainer", "MTCoOp", "--seed", "1", "--quiet", "--output-dir", str(folder)),
            *("--config-file", "configs/trainers/MTCoOp/tiny_ep50.yaml"),
            *("--dataset-config-file", "configs/datasets/digits7.yaml"),
            *("--backbone", "tiny/random"),
            *(*SMALL, "OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1"),
            *("DATASET.TASK_NAMES", variant),
        ]
        train.main(train.parse_args(argv))
        runs.append(read_run(folder))
    rows = aggregate(runs)
    assert len({row.suite for row in rows}) == 1
    assert [row.method for row in rows] == [
        "SoftCPT-NATA (DATASET.TASK_NAMES random)",
        "SoftCPT-NATA (DATASET.TASK_NAMES true)",
    ]
    tasks = json.loads((tmp_path / "random" / "tasks.json").read_text())["tasks"]
    assert [task["name_in_prompts"] for task in tasks] == in_prompts("random")
    assert runs[0].groups != runs[1].groups
