"""Runs on a suite of an ordinal, a single-label and a multi-label task, from training to tables."""

import json
import math
from dataclasses import replace

import pytest
import torch

import parse_test_res
import predict
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.label_kinds import MultiLabel, Ordinal
from dassl.data.tasks import Task, TaskSpace
from dassl.engine import Step
from dassl.engine.label_bias import label_biases, set_label_biases
from dassl.utils import UserError
from dassl.utils.checkpoint import load_checkpoint, write_tensors
from results.predictions import read_predictions
from results.tasks_file import read_words, use_stored_biases, write_tasks
from softcpt import load_run
from softcpt.exporting import export_run
from tests.conftest import TASKS, toy_class
from tests.trainers._methods import METHODS, options

SETS = ((), (0,), (1,), (0, 1))  # of the labels flat, upright stripes, level stripes, checks
KINDS = (
    replace(TASKS[0], kind=Ordinal(0.5)),
    TASKS[1],
    replace(TASKS[2], classnames=("upright", "level"), kind=MultiLabel(SETS, threshold=0.4)),
)
AUTO = ("OPTIM.LOGIT_BIAS", "auto")
REFUSING = {"LinearProbe", "LPPlusPlus", "ProtoNet", "TipAdapter", "ProGrad", "PromptSRC", "DePT"}


@pytest.fixture
def kinds(toy):
    """Registers ToyKinds: the toy images with an ordinal, a single-label, a multi-label task."""
    base = toy_class("ToyKinds", toy)

    def init(self, cfg):
        base.__init__(self, cfg)
        chosen = [KINDS[[t.name for t in TASKS].index(task.name)] for task in self.space.tasks]
        self.space = TaskSpace(tuple(replace(t, kind=replace(t.kind)) for t in chosen))

    DATASET_REGISTRY.register(force=True)(type("ToyKinds", (base,), {"__init__": init}))
    yield
    DATASET_REGISTRY._classes.pop("ToyKinds")


def test_from_training_to_predictions_and_tables(kinds, run, tmp_path, toy_folder, capsys):
    content = run("MTCoOp", *options(), *AUTO, dataset="ToyKinds")
    ordinal, single, multi = content["tasks"]
    assert (ordinal["metric"], list(ordinal["measures"])) == ("overall_acc", ["MAE"])
    assert single["metric"] == "mean_acc" and "measures" not in single
    assert (multi["metric"], list(multi["measures"])) == ("mAP", ["F1"])
    folder = tmp_path / "run"
    assert set(read_predictions(folder).task.tolist()) == {0, 1}
    capsys.readouterr()
    assert parse_test_res.command([str(folder), "--table", "md"]) == 0
    head, _, row = [line for line in capsys.readouterr().out.splitlines() if line[:1] == "|"][:3]
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["kind_of colour, MAE"] == f"{ordinal['measures']['MAE']:.2f}"
    assert cells["stripes, F1"] == f"{multi['measures']['F1']:.1f}"
    images = [str(toy_folder / f"2_{label}_0.png") for label in range(4)]
    assert predict.command([str(folder), *images, "--format", "jsonl", "--task", "stripes"]) == 0
    shown = [json.loads(line)["classes"] for line in capsys.readouterr().out.splitlines()]
    loaded = load_run(folder)
    chances = (loaded.logits(images, task="stripes").double() + multi["bias"]).sigmoid()
    for row, classes in zip(chances, shown, strict=True):
        expected = {name: p for name, p in zip(("upright", "level"), row.tolist(), strict=True)}
        expected = {name: p for name, p in expected.items() if p >= 0.4}
        found = {entry["label"]: entry["probability"] for entry in classes}
        assert found == pytest.approx(expected, abs=1e-5)
    export_run(loaded, tmp_path / "weights", task="stripes")
    (task,) = json.loads((tmp_path / "weights" / "weights.json").read_text())["tasks"]
    assert (task["kind"], task["bias"], task["threshold"]) == ("multi_label", multi["bias"], 0.4)
    assert "sigmoid" in (tmp_path / "weights" / "README.md").read_text()


def test_the_starting_bias_makes_the_mean_logit_as_probable_as_a_class():
    kind = MultiLabel(SETS, positive_weight=3.0)
    logits, label = torch.tensor([[20.0, 22.0], [24.0, 26.0]]), torch.tensor([0, 1])
    odds = 3.0 * (1 + 0.5) / (3 + 0.5)  # one of four is there
    assert kind.starting_bias(logits, label) == pytest.approx(math.log(odds) - 23)
    assert kind.starting_bias(logits, None) == -23
    nothing = kind.starting_bias(logits, torch.zeros(2, dtype=torch.long))
    assert math.isfinite(nothing) and nothing < kind.starting_bias(logits, label)


def test_the_bias_of_the_training_is_evaluated(kinds, run, tmp_path):
    """Not one of the images or the model of the evaluation."""
    first = run("CoOp", *options(), *AUTO, dataset="ToyKinds")["tasks"][2]
    (task,) = [t for t in read_words(tmp_path / "run") if t["name"] == first["name"]]
    assert task["kind"]["bias"] == first["bias"] != 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    other = (*AUTO, "SEED", 5, "DATASET.NUM_SHOTS", 1)
    again = run("CoOp", *options(), *other, dataset="ToyKinds", output=tmp_path / "e", flags=flags)
    assert again["tasks"][2]["bias"] == first["bias"]
    assert again["tasks"][2]["measures"] == first["measures"]


def test_zero_shot_uses_no_labels(kinds, run, tmp_path):
    """Its bias is minus the mean logit of the training images."""
    for flags in (("--eval-only",), ()):
        how = {"dataset": "ToyKinds", "flags": flags, "output": tmp_path / f"run{len(flags)}"}
        task = run("ZeroshotCLIP", *AUTO, **how)["tasks"][2]
        assert task["bias"] == pytest.approx(-task["mean_logit"], abs=0.5)


def test_a_held_out_task_uses_no_labels(kinds, run, tmp_path):
    """If the training had no multi-label task whose bias it could use."""
    words = (*options(), *AUTO, "DATASET.SUBSAMPLE_TASKS")
    run("MTCoOp", *words, "not_task2", dataset="ToyKinds")
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    out = tmp_path / "e"
    (task,) = run("MTCoOp", *words, "task2", dataset="ToyKinds", output=out, flags=flags)["tasks"]
    assert task["bias"] == pytest.approx(-task["mean_logit"], abs=0.5)
    assert read_words(out)[0]["kind"]["bias"] == task["bias"]


@pytest.mark.parametrize(("method", "place"), [("MTCoOp", "run"), ("CoOp", "run/task2")])
def test_a_resumed_training_has_the_bias_of_its_start(kinds, run, tmp_path, method, place):
    """Its own computation may round differently."""
    first = run(method, *options(), *AUTO, dataset="ToyKinds")["tasks"][2]["bias"]
    state = load_checkpoint(tmp_path / place / "resume.pt")
    assert state["label_biases"] == {"stripes": first}

    def resumed(biases):
        write_tensors({**state, **biases}, tmp_path / place / "resume.pt")
        (tmp_path / "run" / "results.json").unlink()
        bias = run(method, *options(), *AUTO, dataset="ToyKinds")["tasks"][2]["bias"]
        assert read_words(tmp_path / "run")[2]["kind"]["bias"] == bias
        return bias

    assert resumed({"label_biases": {"stripes": -7.0}}) == -7
    assert resumed({"label_biases": {}}) == first  # a state of an earlier version


def test_the_bias_is_computed_when_it_is_needed_and_draws_nothing(kinds, build):
    trainer = build("MTCoOp", *options(), *AUTO, dataset="ToyKinds")
    kind, before = trainer.dm.space.kinds[2], torch.get_rng_state()
    assert kind.bias == 0
    set_label_biases(trainer)
    assert kind.bias != 0 and torch.equal(torch.get_rng_state(), before)


def test_a_number_sets_the_bias_by_hand(build):
    small = ("DATASET.NUM_SHOTS", 1, "OPTIM.LOGIT_BIAS")
    trainer = build("MTCoOp", *options(), *small, -2, dataset="DigitLabels")
    assert trainer.dm.space.kinds[1].bias == -2
    assert label_biases(trainer) == {}
    with pytest.raises(UserError, match=r"LOGIT_BIAS takes auto or a number; got 'aut'"):
        build("MTCoOp", *small, "aut", dataset="DigitLabels")


def test_a_held_out_task_has_the_mean_bias_of_the_trained_ones(tmp_path):
    def space(**biases):
        return TaskSpace(
            tuple(Task(n, ("a", "b"), kind=MultiLabel(SETS, bias=b)) for n, b in biases.items())
        )

    write_tasks(TaskSpace((*space(x=-4, y=-8).tasks, TASKS[0])), tmp_path)
    tested = space(y=0, z=0)
    assert use_stored_biases(tested, tmp_path)
    assert [kind.bias for kind in tested.kinds] == [-8, -6]
    write_tasks(TaskSpace((TASKS[0],)), tmp_path)
    assert not use_stored_biases(tested, tmp_path)
    assert [kind.bias for kind in tested.kinds] == [-8, -6]


def test_a_trainer_that_knows_one_class_per_image_is_refused(kinds, cli):
    words = ("DATASET.SUBSAMPLE_TASKS", "task2")
    code, _, err = cli(*words, trainer="ProtoNet", dataset="ToyKinds")
    assert code == 2 and "ProtoNet" in err and "'stripes'" in err and "multi_label" in err


@pytest.mark.parametrize(
    ("trainer", "key", "value", "off"),
    [
        ("MTCoOp", "TRAINER.MTCOOP.ANCHOR_LOGITS", 0.5, 0),
        ("CLIPAdapter", "TRAINER.CLIP_ADAPTER.SEARCH", True, False),
        ("CoT", "TRAINER.COT.BATCH_CONTRAST", 0.5, 0),
    ],
)
def test_a_refusal_because_of_a_key_advises_to_change_it(trainer, key, value, off, kinds, build):
    with pytest.raises(UserError) as error:
        words = (*options(), "DATASET.SUBSAMPLE_TASKS", "task2", key, value)
        build(trainer, *words, dataset="ToyKinds")
    assert f"set {key} to {off}" in str(error.value)
    assert "another method" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_every_kind_or_says_why_not(kinds, build, method):
    words = ("DATASET.SUBSAMPLE_TASKS", "task2")
    if method in REFUSING:
        with pytest.raises(UserError, match=rf"{method} .*'stripes'.*multi_label"):
            build(method, *options(), *words, dataset="ToyKinds")
        words = ("DATASET.SUBSAMPLE_TASKS", "not_task2")
    for part in build(method, *options(), *words, dataset="ToyKinds").task_trainers:
        if part.optimizers():
            part.set_model_mode("train")
            losses = part.train_step(next(iter(part.train_loader_x)), Step(0, 0, 1))
            assert all(torch.as_tensor(loss).isfinite() for loss in losses.values())
        if method not in REFUSING:
            part.test()
            assert part.evaluator.tasks[0]["metric"] == "mAP"
