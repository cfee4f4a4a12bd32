"""Trainings of SoftCPT: upstream's steps, frozen class contexts, meta networks, sampled classes."""

import copy
import re

import pytest
import torch

from dassl.engine import Step
from tests.reference import prompts as naive
from tests.trainers._methods import D, E, M, U, guessing, learned, options, training_loss

LOSS = re.compile(r"epoch \[(\d+)/\d+\]\[\d+/\d+\].*?loss \S+ \((\S+)\).*lr (\S+)")


def log_of(folder):
    return (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("switches", "rates"),
    [((), {18: 0.0, 34: 1.99e-3, 50: 3.1e-5}), (("MTCOOP.CSC",), {50: 1.95e-3})],
)
def test_upstream_steps_bend_the_schedule(run, tmp_path, switches, rates):
    recipe = "configs/_base_/sgd_cosine_ep50.yaml"
    one_step = ("DATASET.SUBSAMPLE_TASKS", "task1", "OPTIM.MAX_EPOCH", 50)
    words = options(*switches, "MTCOOP.UPSTREAM_STEPS")
    content = run("MTCoOp", *words, *one_step, flags=("--config-file", recipe))
    names = 4 if switches else 3
    assert content["protocol"]["steps_rule"].startswith(f"upstream: {names} optimizer steps")
    shown = {int(e): float(lr) for e, _, lr in LOSS.findall(log_of(tmp_path / "run"))}
    assert len(shown) == 50
    assert shown[1] == pytest.approx(1e-5)
    for epoch, rate in rates.items():
        assert shown[epoch] == pytest.approx(rate, rel=2e-2, abs=1e-9)


@pytest.mark.parametrize("switches", [(), ("MTCOOP.CSC",)])
def test_upstream_steps_are_repeated_sgd_steps_on_one_gradient(build, switches):
    words = options(*switches, "MTCOOP.UPSTREAM_STEPS")
    trainer = build("MTCoOp", *words)
    batch = next(iter(trainer.train_loader_x))
    by_hand = copy.deepcopy(trainer.model.prompter)
    weights = [p for p in by_hand.parameters() if p.requires_grad]
    trainer.train_step(batch, Step(0, 0, 2))
    features = trainer.model.encode_image(batch["img"])["global"]
    text = by_hand(trainer.clip.text_tower, features)
    scores = naive.logits(features, text, trainer.clip.logit_scale)
    loss = naive.loss(scores, batch["label"].tolist(), batch["task"].tolist(), [3, 2, 4])
    grads = torch.autograd.grad(loss, weights)
    for weight, grad in zip(weights, grads, strict=True):
        value, speed = weight.detach(), torch.zeros_like(grad)
        for _ in range(4 if switches else 3):
            speed = 0.9 * speed + grad + 5e-4 * value
            value = value - 0.002 * speed
        weight.data = value
    for mine, theirs in zip(trainer.model.prompter.parameters(), weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_one_step_per_batch_otherwise(build):
    trainer = build("MTCoOp", *options())
    assert trainer.steps_rule == "one step per batch"
    trainer.train()
    state = trainer.optimizers()[0].state
    assert trainer.schedulers()[0].last_epoch == 2
    assert state


def test_frozen_class_context_stays(build):
    words = (*options("MTCOOP.CSC"), "TRAINER.MTCOOP.FREEZE_CLS_PROMPT", 1)
    trainer = build("MTCoOp", *words)
    prompter = trainer.model.prompter
    start = {name: p.detach().clone() for name, p in prompter.named_parameters()}
    trainer.train()
    moved = {n for n, p in prompter.named_parameters() if not torch.equal(p, start[n])}
    assert moved == {"tasks.ctx", "meta.proj"}
    assert "classes.ctx" in prompter.state_dict()
    assert trainer.results()["trainable"]["parameters"] == 2 * E * M * D + U * D


@pytest.mark.parametrize("switches", [(), ("MTCOOP.CSC", "MTCOOP.CLASS_CSC")])
@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_own_meta_networks_train(build, kind, switches):
    steps = ("OPTIM.MAX_EPOCH", 8, "OPTIM.LR", 0.02, "TRAINER.MTCOOP.PG_TYPE", kind)
    trainer = build("MTCoOp", *options(*switches), *steps)
    start = {name: p.detach().clone() for name, p in learned(trainer).items()}
    loss = training_loss(trainer)
    trainer.train()
    chance = guessing(trainer)
    assert training_loss(trainer) - chance < (loss - chance) / 2
    still = [n for n, p in learned(trainer).items() if torch.equal(p, start[n])]
    assert not still


def test_class_sampling_trains(build):
    words = ("TRAINER.MTCOOP.CLS_SAMPLE_RATE", 0.5, "OPTIM.MAX_EPOCH", 8, "OPTIM.LR", 0.02)
    trainer = build("MTCoOp", *options("MTCOOP.CSC"), *words)
    loss = training_loss(trainer)
    trainer.train()
    chance = guessing(trainer)
    assert training_loss(trainer) - chance < (loss - chance) / 2
