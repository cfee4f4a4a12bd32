"""Temperatures fitted after training: against a grid, and what they change in a run."""

import json
import math

import numpy as np
import pytest
import torch

import softcpt
from dassl.config import get_cfg_default
from dassl.data import Datum, Task, TaskSpace
from dassl.data.datasets import DatasetBase
from dassl.data.label_kinds import MultiLabel
from dassl.engine.calibration import (
    _at_bounds,
    _by_task,
    _fit,
    _fitting_split,
    check_calibration,
    fit_temperatures,
)
from dassl.metrics.calibration import (
    HIGHEST,
    LOWEST,
    calibration_error,
    calibration_measures,
    fit_temperature,
    mean_nll,
)
from dassl.utils import UserError
from results.calibration import calibration_before
from results.predictions import read_predictions

RNG = np.random.default_rng(0)


def drawn(images, classes, scale):
    """Logits and labels of images that a model of logits / scale classifies."""
    logits = scale * RNG.normal(size=(images, classes))
    shares = np.exp(logits / scale)
    shares /= shares.sum(axis=1, keepdims=True)
    labels = np.array([RNG.choice(classes, p=row) for row in shares])
    return logits, labels


def naive_nll(logits, labels, temperature):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        shares = np.exp(row / temperature) / np.exp(row / temperature).sum()
        total -= np.log(shares[label])
    return total / len(labels)


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_the_temperature_is_that_of_a_fine_grid(scale):
    tasks = [drawn(60, 3, scale), drawn(40, 5, scale)]
    logits, labels = zip(*tasks, strict=True)
    grid = np.geomspace(0.05, 20, 6001)
    best = min(grid, key=lambda t: mean_nll(logits, labels, t))
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(best, rel=1e-3)
    naive = (60 * naive_nll(*tasks[0], found) + 40 * naive_nll(*tasks[1], found)) / 100
    assert mean_nll(logits, labels, found) == pytest.approx(naive)


def test_images_that_are_all_right_or_all_wrong_stop_at_the_bounds():
    logits = np.array([[95.0, 91.0], [24.0, 21.0]])  # 95 / 0.05 is too large for exp
    assert LOWEST <= fit_temperature([logits], [np.array([0, 0])]) < 2 * LOWEST
    assert fit_temperature([logits], [np.array([1, 1])]) == pytest.approx(HIGHEST, rel=1e-3)


def test_measures_against_loops():
    probability = np.array([0.9, 0.95, 0.27, 0.33])  # the last two in one of 15 bins only
    correct = np.array([True, False, False, True])
    gaps = {}
    for p, right in zip(probability, correct, strict=True):
        gaps.setdefault(int(p * 15), []).append(right - p)
    expected = sum(abs(sum(gap)) for gap in gaps.values()) / 4
    assert calibration_error(probability, correct) == pytest.approx(expected)
    found = calibration_measures(probability, correct, np.array([0.9, 0.05, 0.1, 0.31]))
    assert found["ece"] == pytest.approx(100 * expected)
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.05, 0.1, 0.31]).mean())


def test_probabilities_that_are_no_numbers_count_as_0():
    nan = np.full(2, np.nan)
    found = calibration_measures(nan, np.array([True, False]), nan)
    assert found["ece"] == 50 and math.isfinite(found["nll"])


@pytest.mark.parametrize(("method", "by"), [("MTCoOp", "run"), ("MTCoOp", "task"), ("CoOp", "run")])
def test_a_run_records_before_and_after(run, tmp_path, method, by):
    plain = run(method, output=tmp_path / "plain")
    record = run(method, "TEST.CALIBRATION", by, output=tmp_path / "fitted")
    values = [[task["value"] for task in one["tasks"]] for one in (plain, record)]
    assert values[0] == values[1] and "calibration" not in plain
    section = record["calibration"]
    assert section["by"] == ("task" if method == "CoOp" else by)
    assert section["fitted_on"] == "val" and [t["id"] for t in section["tasks"]] == [0, 1, 2]
    temperatures = [task["temperature"] for task in section["tasks"]]
    assert len(set(temperatures)) == (1 if section["by"] == "run" else 3)
    before, after = (read_predictions(tmp_path / name) for name in ("plain", "fitted"))
    assert np.array_equal(before.classes[:, 0], after.classes[:, 0])
    for t, task in enumerate(section["tasks"]):
        mine = before.task == t
        for found, suffix in ((before, "_before"), (after, "")):
            likelihood = found.label_probability[mine]
            assert task[f"nll{suffix}"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-4)
    for key, mean in zip(
        ("ece_before", "nll_before"), calibration_before(tmp_path / "fitted"), strict=True
    ):
        assert mean == pytest.approx(sum(task[key] for task in section["tasks"]) / 3)
    assert calibration_before(tmp_path / "plain") == (None, None)
    trained = softcpt.load_run(tmp_path / "fitted")
    images = [item.impath for item in trained_test_items(tmp_path, after, 2)]
    shown = trained.predict(images, task=2, top=1)
    assert [one.probability for one in shown] == pytest.approx(
        after.probabilities[after.task == 2][:, 0].tolist(), abs=2e-3
    )


def trained_test_items(tmp_path, found, t):
    """The test images of a task, in the order of its predictions."""
    folder = json.loads((tmp_path / "images.json").read_text())
    return [
        Datum(f"{folder}/{path}")
        for path, task in zip(found.paths, found.task, strict=True)
        if task == t
    ]


@pytest.fixture(autouse=True)
def images(toy, tmp_path):
    (tmp_path / "images.json").write_text(json.dumps(str(toy)))


def test_the_likelihood_of_the_images_fitted_on_rises(build):
    trainer = build("MTCoOp", "TEST.CALIBRATION", "task")
    trainer.test("val")
    section = trainer.temperatures.results(trainer.predictions)
    assert section["fitted_on"] == "val"
    for task in section["tasks"]:
        assert task["nll"] < task["nll_before"] and task["temperature"] != 1


def test_without_validation_images_the_training_images_are_used(run, build, tmp_path):
    record = run("MTCoOpHard", "TEST.CALIBRATION", "run", "TEST.SPLIT", "val")
    assert record["calibration"]["fitted_on"] == "train"
    assert [t["fitted_images"] for t in record["calibration"]["tasks"]] == [12, 8, 16]


def test_captions_have_no_probabilities_to_calibrate(cli):
    words = ("TEST.CALIBRATION", "run", "DATASET.SUBSAMPLE_TASKS", "all", "DATASET.NUM_SHOTS", "4")
    code, _, err = cli(*words, trainer="CoOp", dataset="DigitCaptions")
    assert code == 2 and "TEST.CALIBRATION" in err and "pairs" in err


def test_export_includes_temperatures_when_asked(run, tmp_path):
    run("MTCoOp", "TEST.CALIBRATION", "task", output=tmp_path / "fitted")
    trained = softcpt.load_run(tmp_path / "fitted", device="cpu")
    softcpt.export_run(trained, tmp_path / "plain")
    softcpt.export_run(trained, tmp_path / "scaled", calibrated=True)
    infos = [json.loads((tmp_path / n / "weights.json").read_text()) for n in ("plain", "scaled")]
    for t, (plain, scaled) in enumerate(zip(*(i["tasks"] for i in infos), strict=True)):
        assert plain["logit_scale"] == infos[0]["logit_scale"]
        assert scaled["logit_scale"] * trained.temperature(t) == pytest.approx(plain["logit_scale"])
    run("MTCoOp", output=tmp_path / "other")
    with pytest.raises(UserError, match=r"TEST.CALIBRATION run or task"):
        softcpt.export_run(softcpt.load_run(tmp_path / "other"), tmp_path / "none", calibrated=True)
    assert not (tmp_path / "none").exists()


SUITE = TaskSpace(
    (
        Task("size", ("small", "large")),
        Task("colour", ("red", "green")),
        Task("shown", ("sun", "moon"), kind=MultiLabel()),
    )
)


def test_a_task_without_images_to_fit_on_is_recorded_with_its_temperature():
    by_task = {0: drawn(60, 2, 3.0)}
    common = _fit(SUITE, "run", "val", by_task).results(None)["tasks"]
    assert [(t["id"], t["fitted_images"]) for t in common] == [(0, 60), (1, 0)]
    assert common[0]["temperature"] == common[1]["temperature"] != 1
    own = _fit(SUITE, "task", "val", by_task).results(None)["tasks"]
    assert own[0]["temperature"] == common[0]["temperature"] and own[1]["temperature"] == 1


def dataset_of(train=(), val=(), test=(0,)):
    """A dataset that has an image of each of these tasks."""
    parts = [
        [Datum(f"{name}{t}.png", task=t) for t in tasks]
        for name, tasks in (("train", train), ("val", val), ("test", test))
    ]
    return DatasetBase(parts[0], None, parts[1], parts[2], SUITE)


def test_only_images_of_one_class_are_fitted_on():
    cfg = get_cfg_default()
    cfg.TEST.CALIBRATION = "run"
    assert _fitting_split(cfg, dataset_of(train=(0,), val=(2,))) == "train"
    assert _fitting_split(cfg, dataset_of(train=(0,), val=(0, 2))) == "val"
    with pytest.raises(UserError, match=r"validation or training images of 'size', 'colour'"):
        check_calibration(cfg, dataset_of(train=(2,), val=(2,)))
    cfg.TEST.SPLIT = "val"
    with pytest.raises(UserError, match=r"not evaluated"):
        check_calibration(cfg, dataset_of(val=(0, 1)))


def test_methods_of_separate_tasks_leave_multi_label_tasks_out(build):
    words = ("TEST.CALIBRATION", "task", "DATASET.NUM_SHOTS", 1)
    trainer = build("CoOp", *words, dataset="DigitLabels")
    labels = [t.cfg.TEST.CALIBRATION for t in trainer.task_trainers]
    multi = trainer.space.set_tasks
    assert multi and labels == ["" if t in multi else "task" for t in range(len(labels))]


def test_the_multi_label_part_of_a_suite_has_no_temperature(build):
    words = ("TEST.CALIBRATION", "run", "DATASET.NUM_SHOTS", 1, "DATASET.SUBSAMPLE_TASKS", "task1")
    trainer = build("MTCoOp", *words, dataset="DigitLabels")
    assert fit_temperatures(trainer, trainer.build_inference("test")) is None


def test_a_temperature_at_a_bound_is_said_of_its_task_only():
    logits = np.array([[5.0, 1.0], [4.0, 1.0]])
    by_task = {t: (logits, np.full(2, t)) for t in range(2)}
    low, high = _at_bounds(_fit(SUITE, "task", "val", by_task), SUITE)
    assert "'size' is near its lower" in low and "'colour'" not in low
    assert "'colour' is at its upper" in high and "'size'" not in high
    assert _at_bounds(_fit(SUITE, "task", "val", {0: drawn(60, 2, 3.0)}), SUITE) == []


def test_no_image_of_a_multi_label_task_is_fitted_on():
    zeros = torch.zeros(3, dtype=torch.long)
    found = _by_task(SUITE, torch.zeros(3, 6), zeros, torch.tensor([0, 2, 2]))
    assert {t: len(labels) for t, (_, labels) in found.items()} == {0: 1}
