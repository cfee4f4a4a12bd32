"""LP++: its start, its iterates and the one that is chosen, against a naive rewrite."""

import pytest
import torch

from tests.conftest import TASKS
from tests.reference import heads as naive

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
KEY = "TRAINER.LPPLUSPLUS"


def text_of(trainer, task=TASKS[2]):
    phrases = [task.templates[0].format(name.replace("_", " ")) for name in task.classnames]
    return trainer.clip.text_tower.encode_text(phrases).double()


def features_of(trainer, split="train"):
    features, label, _ = trainer.split_features(split, 1 if split == "train" else 0)
    return features["global"].double(), label.tolist()


@pytest.mark.parametrize("start", ["sum", "mean"])
@pytest.mark.parametrize("upstream", [False, True])
def test_iterates_equal_naive_ones(build, close, start, upstream):
    """Over two steps of alpha, so that what the released code adds up differs."""
    options = (f"{KEY}.SEARCH", False, f"{KEY}.ITERATIONS", 22, f"{KEY}.START", start)
    trainer = build("LPPlusPlus", *options, f"{KEY}.UPSTREAM_STEPS", upstream, *ONE)
    bias = trainer.model.prompter.bias.detach().double().clone()
    assert 1 / 64 < bias.abs().max() <= 1 / 8 and bias.unique().numel() == 4  # torch's for width 64
    trainer.train()
    probe, (x, y) = trainer.model.prompter, features_of(trainer)
    wanted = naive.lp_plus_plus(x, y, text_of(trainer), bias, 22, start == "mean", upstream)[-1]
    for mine, theirs in zip((probe.weight, probe.bias, probe.alpha), wanted, strict=True):
        close(mine.detach(), theirs, 1e-3)  # 22 steps in fp32
    images = torch.randn(3, 64)
    expected = naive.blended(images.double(), *wanted, text_of(trainer))
    close(trainer.forward({"global": images}).logits.detach(), expected, 1e-3)


def test_validation_chooses_the_last_of_the_best(build, capsys):
    trainer = build("LPPlusPlus", f"{KEY}.ITERATIONS", 40, *ONE)
    probe = trainer.model.prompter
    bias = probe.bias.detach().double().clone()
    trainer.train()
    (x, y), (val, labels) = features_of(trainer), features_of(trainer, "val")
    text = text_of(trainer)
    found = [
        (naive.blended(val, *values, text).argmax(1) == torch.tensor(labels)).float().mean().item()
        for values in naive.lp_plus_plus(x, y, text, bias, 40)
    ]
    best = max(i for i, value in enumerate(found, 1) if value == max(found))
    line = f"iteration {best}: {100 * max(found):.2f}% on {len(labels)} validation images"
    assert line in capsys.readouterr().out


def test_a_suite_takes_each_task_by_itself(run, tmp_path):
    suite = run("LPPlusPlus", output=tmp_path / "suite")
    alone = run("LPPlusPlus", *ONE, output=tmp_path / "alone")
    assert {**alone["tasks"][0], "id": 2} == suite["tasks"][2]
    assert suite["protocol"]["steps_rule"] == "fitted"
