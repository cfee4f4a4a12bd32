"""Cosines between the gradients of tasks, recorded during a joint training."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from dassl.engine import Step
from dassl.utils import UserError
from dassl.utils.checkpoint import load_checkpoint
from results.task_relations import FILE

EVERY_STEP = ("TRAIN.TASK_GRADIENTS", 1)
ONE_BATCH = ("DATALOADER.TRAIN_X.BATCH_SIZE", 64)


def first_batch(trainer):
    trainer.train_loader_x.set_epoch(0)
    return next(iter(trainer.train_loader_x))


def naive_cosines(trainer, batch, bound=()):
    """One backward pass through everything per task, and the cosine of each pair by hand."""
    prompter, space = trainer.model.prompter, trainer.dm.space
    features = trainer.image_features(batch)
    gradients = []
    for t in range(len(space.tasks)):
        prompter.zero_grad()
        logits = trainer.forward(features).logits
        columns = space.columns(t)
        rows = (batch["task"] == t).nonzero()[:, 0]
        F.cross_entropy(logits[rows][:, columns], batch["label"][rows]).backward()
        gradients.append({n: p.grad for n, p in prompter.named_parameters() if n not in bound})
    prompter.zero_grad()

    def dot(a, b):
        return sum((a[n] * b[n]).sum().item() for n in a)

    return [[dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) for b in gradients] for a in gradients]


@pytest.mark.parametrize(
    "trainer, options, bound",
    [
        ("MTCoOp", (), ()),
        ("MTCoOp", ("TRAINER.MTCOOP.TASK_CSC", "True"), ("tasks.ctx",)),
        ("MTCoOpHard", ("OPTIM.TASK_WEIGHTS", "running_mean"), ()),
    ],
)
def test_cosines_are_those_of_a_backward_pass_per_task(build, trainer, options, bound):
    built = build(trainer, *EVERY_STEP, *ONE_BATCH, *options)
    batch = first_batch(built)
    expected = naive_cosines(built, batch, bound)
    (observer,) = built.observers
    before = built.task_weights.state_dict()
    observer.before_step(batch, Step(0, 0, 1))
    torch.testing.assert_close(
        torch.tensor(observer.cosines[0]), torch.tensor(expected), rtol=1e-3, atol=1e-4
    )
    assert set(observer.shared).isdisjoint(bound)
    assert all(p.grad is None or not p.grad.any() for p in built.model.prompter.parameters())
    torch.testing.assert_close(built.task_weights.state_dict(), before)


def test_a_task_that_a_batch_lacks_has_no_cosine(build):
    built = build("MTCoOpHard", *EVERY_STEP, *ONE_BATCH)
    batch = first_batch(built)
    rows = (batch["task"] != 1).nonzero()[:, 0]
    batch = {k: v[rows] if torch.is_tensor(v) else [v[i] for i in rows] for k, v in batch.items()}
    (observer,) = built.observers
    observer.before_step(batch, Step(0, 0, 1))
    cosines = observer.relations()["cosines"][0]
    assert cosines[1] == [None] * 3 and cosines[0][1] is None and abs(cosines[0][2]) <= 1


def test_recording_changes_nothing_and_survives_a_stop(run, tmp_path, monkeypatch):
    """The same weights with and without it; the same file after a stop between the epochs."""
    plain = run("MTCoOp", output=tmp_path / "plain")
    recorded = run("MTCoOp", *EVERY_STEP, output=tmp_path / "recorded")
    assert recorded["hashes"] == plain["hashes"] and recorded["tasks"] == plain["tasks"]
    states = [
        load_checkpoint(tmp_path / name / "prompt_learner" / "model.pth.tar-2")["state_dict"]
        for name in ("plain", "recorded")
    ]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert not (tmp_path / "plain" / FILE).exists()
    content = json.loads((tmp_path / "recorded" / FILE).read_text())
    assert content["tasks"] == [task["name"] for task in recorded["tasks"]]
    assert content["tensors"] == ["tasks.ctx", "meta.proj"]
    assert content["steps"] == list(range(len(content["cosines"]))) and len(content["steps"]) > 2
    assert all(row[i] == pytest.approx(1) for i, row in enumerate(content["contexts"]))

    from dassl.engine import TRAINER_REGISTRY

    cls = TRAINER_REGISTRY.get("MTCoOp")
    after_epoch = cls.after_epoch

    def stop(self):
        after_epoch(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cls, "after_epoch", stop)
        run("MTCoOp", *EVERY_STEP, output=tmp_path / "stopped")
    run("MTCoOp", *EVERY_STEP, output=tmp_path / "stopped")
    assert json.loads((tmp_path / "stopped" / FILE).read_text()) == content


def test_only_every_nth_step_is_recorded(run, tmp_path):
    run("MTCoOpHard", "TRAIN.TASK_GRADIENTS", 3)
    content = json.loads((tmp_path / "run" / FILE).read_text())
    assert content["steps"][:2] == [0, 3] and content["contexts"] is None


def test_where_there_is_nothing_to_compare(build):
    assert not build("CoOp", *EVERY_STEP, "DATASET.SUBSAMPLE_TASKS", "task0").observers
    assert not build("MTCoOp", *EVERY_STEP, "DATASET.SUBSAMPLE_TASKS", "task0").observers
    with pytest.raises(UserError, match=r"TASK_GRADIENTS 1 .* RoundRobinTaskSampler"):
        build("MTCoOpHard", *EVERY_STEP, "DATALOADER.TRAIN_X.SAMPLER", "RoundRobinTaskSampler")
    with pytest.raises(UserError, match=r"TASK_GRADIENTS 1 .* CoOp-MT \(per task\)"):
        build("MTCoOpHard", *EVERY_STEP, "TRAINER.MTCOOPH.TSC", "True")
