"""The task of an image chosen by the text side: values computed by hand, and what is refused."""

import pytest
import torch

import train
from dassl.config import get_cfg_default
from dassl.data import Task, TaskSpace
from dassl.evaluation import build_evaluator
from dassl.evaluation.task_choice import TaskChoice, best_scores
from dassl.utils import UserError
from results.aggregate import aggregate
from results.read import read_run
from results.tables import format_table
from tests.conftest import toy_args

SPACE = TaskSpace(
    (Task("animal", ("cat", "dog")), Task("colour", ("red", "green", "blue"), metric="mean_acc"))
)
# logits of cat, dog | red, green, blue
SHOTS = torch.tensor(
    [
        [9.0, 1.0, 4.0, 2.0, 0.0],  # animal: best scores 9 and 4
        [3.0, 7.0, 0.0, 6.0, 1.0],  # animal: 7 and 6
        [2.0, 4.0, 0.0, 1.0, 8.0],  # colour: 4 and 8
    ]
)
SHOT_TASKS = torch.tensor([0, 0, 1])
# Mean of the task's means: animal (8 + 4) / 2 = 6, colour (5 + 8) / 2 = 6.5. Variance, likewise:
# animal ((9 + 1) / 2 + 4) / 2 = 4.5, colour ((6.25 + 0.25) / 2 + 2.25) / 2 = 2.75.
MEAN, STD = (6.0, 6.5), (4.5**0.5, 2.75**0.5)
TESTS = torch.tensor(
    [
        [8.0, 0.0, 7.0, 0.0, 0.0],  # 0.94 and 0.30: animal, a cat
        [7.0, 8.0, 9.0, 0.0, 0.0],  # 0.94 and 1.51: colour, though it is an animal
        [9.0, 0.0, 0.0, 8.6, 0.0],  # 1.41 and 1.27: animal, though it is a colour
        [5.0, 0.0, 0.0, 6.0, 7.0],  # -0.47 and 0.30: colour, blue
        [5.0, 0.0, 7.0, 0.0, 6.0],  # -0.47 and 0.30: colour, but not red
    ]
)
TEST_TASKS, LABELS = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 2, 1])


def evaluator(**options):
    cfg = get_cfg_default()
    cfg.TEST.TASK_GIVEN = False
    for key, value in options.items():
        cfg.TEST[key] = value
    return build_evaluator(cfg, space=SPACE)


def test_best_scores_and_their_calibration():
    scores = best_scores(SHOTS, SPACE)
    assert scores.tolist() == [[9, 4], [7, 6], [4, 8]]
    choice = TaskChoice.fit(SPACE, scores, SHOT_TASKS)
    assert choice.mean.tolist() == pytest.approx(MEAN) and choice.std.tolist() == pytest.approx(STD)
    assert choice.choose(TESTS).tolist() == [0, 1, 0, 1, 1]


def test_results_with_and_without_the_task(capsys):
    found = evaluator()
    found.choice = TaskChoice.fit(SPACE, best_scores(SHOTS, SPACE), SHOT_TASKS)
    for part in (slice(0, 2), slice(2, 5)):
        found.process(TESTS[part], LABELS[part], TEST_TASKS[part])
    found.evaluate()
    animal, colour = found.tasks
    assert animal["value"] == 100 and animal["without_task"] == 50 == animal["task_chosen"]
    # mean over the classes with images: green 1 of 2, blue 1 of 1; without the task 0 of 2 and 1
    assert colour["value"] == 75 and colour["without_task"] == 50
    assert colour["task_chosen"] == pytest.approx(200 / 3)
    assert found.suite["value"] == 87.5
    assert found.suite["without_task"] == {"value": 50, "groups": {}}
    assert found.suite["task_chosen"]["value"] == pytest.approx((50 + 200 / 3) / 2)
    shown = capsys.readouterr().out
    assert "- task 0 (animal): metric 50.00%" in shown and "- mean: metric 50.00%" in shown


def test_a_task_without_images_is_left_out_of_both_means():
    found = evaluator()
    found.choice = TaskChoice.fit(SPACE, best_scores(SHOTS, SPACE), SHOT_TASKS)
    found.process(TESTS[:2], LABELS[:2], TEST_TASKS[:2])
    found.evaluate()
    assert found.tasks[1]["without_task"] is None is found.tasks[1]["task_chosen"]
    assert found.suite["without_task"]["value"] == 50 == found.suite["task_chosen"]["value"]


def test_without_calibration_the_results_are_the_usual_ones():
    found = evaluator()
    found.process(TESTS, LABELS, TEST_TASKS)
    found.evaluate()
    assert "without_task" not in found.suite and "without_task" not in found.tasks[0]


def test_a_score_that_never_varies_is_divided_by_no_zero():
    choice = TaskChoice.fit(SPACE, torch.ones(3, 2), SHOT_TASKS)
    assert choice.choose(TESTS).shape == (5,)


def test_a_run_records_both_and_tables_show_them(run, tmp_path):
    record = run("MTCoOpHard", "TRAINER.MTCOOPH.N_CTX", 2, "TEST.TASK_GIVEN", False)
    plain = train.main(
        toy_args("MTCoOpHard", "TRAINER.MTCOOPH.N_CTX", 2, output=tmp_path / "plain")
    )
    for task, usual in zip(record["tasks"], plain["tasks"], strict=True):
        assert task["without_task"] <= task["value"] == usual["value"]
        assert task["without_task"] <= task["task_chosen"]
    assert "without_task" not in plain["suite"]
    read = read_run(tmp_path / "run")
    assert read.get("without_task") == record["suite"]["without_task"]["value"]
    header = format_table(aggregate([read]), "md")
    assert "task not given" in header and "task chosen right" in header
    assert "task chosen right" not in format_table(aggregate([read_run(tmp_path / "plain")]), "md")


@pytest.mark.parametrize(
    ("trainer", "options", "message"),
    [
        ("MTCoOpHard", {"DATASET.SUBSAMPLE_TASKS": "task0"}, "TASK_GIVEN False .*Toy has one"),
        ("CoOp", {}, "CoOp trains each task separately"),
        ("MTCoOp", {"TRAINER.MTCOOP.IMAGE_PROMPTS": True}, "IMAGE_PROMPTS .*TASK_GIVEN False"),
        ("MTCoOpHard", {"TEST.EVALUATOR": "Classification"}, "ClassificationMT; got Classific"),
    ],
)
def test_where_the_question_has_no_answer(build, trainer, options, message):
    words = [word for pair in options.items() for word in pair]
    with pytest.raises(UserError, match=message):
        build(trainer, "TEST.TASK_GIVEN", False, *words)


def test_images_that_several_tasks_ask_about_are_refused(tmp_path):
    args = train.parse_args(
        [
            *("--trainer", "MTCoOpHard", "--output-dir", str(tmp_path), "--backbone", "tiny"),
            *("DATASET.NAME", "Digits7", "DATASET.NUM_SHOTS", "1", "TEST.TASK_GIVEN", "False"),
        ]
    )
    with pytest.raises(UserError, match=r"\.png is a test image of 'digit identity' and of 'odd"):
        train.main(args)


def test_a_task_of_several_classes_per_image_is_refused(build):
    with pytest.raises(UserError, match=r"TASK_GIVEN False .*multi_label"):
        build("MTCoOpHard", "TEST.TASK_GIVEN", False, "DATASET.NUM_SHOTS", 1, dataset="DigitLabels")


@pytest.mark.slow
def test_a_miniature_of_general10(tmp_path):
    from datasets._core.mini import make_mini

    make_mini("General10", tmp_path / "data", 4)
    words = ["TEST.TASK_GIVEN", "False", "DATASET.NUM_SHOTS", "1", "DATASET.NAME", "General10"]
    args = train.parse_args(
        [
            *("--trainer", "ZeroshotCLIP", "--output-dir", str(tmp_path / "run"), "--quiet"),
            *("--root", str(tmp_path / "data"), "--backbone", "tiny/random", "--seed", "1", *words),
        ]
    )
    record = train.main(args)
    assert len(record["tasks"]) == 10
    assert all(task["without_task"] <= task["task_chosen"] for task in record["tasks"])
