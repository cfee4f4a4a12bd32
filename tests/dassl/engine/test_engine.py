"""The engine without CLIP: order of the hooks, registered models, the log."""

import json

import pytest
import torch
from torch import nn

from dassl.engine import TrainerBase, TrainerX
from dassl.utils import UserError
from tests.dassl.engine._trainers import Plain, same, weights

HOOKS = (
    *("check_cfg", "build_data_loader", "build_model", "before_train", "before_epoch"),
    *("run_epoch", "forward_backward", "update_lr", "after_epoch", "after_train", "test"),
    *("parse_batch_test", "model_inference"),
)


def test_hooks_come_in_dassls_order(make):
    calls = []

    def noted(name):
        def method(self, *args, **kwargs):
            calls.append(name)
            return getattr(super(Watched, self), name)(*args, **kwargs)

        return method

    Watched = type("Watched", (Plain,), {name: noted(name) for name in HOOKS})
    make(Watched).train()
    step = ["forward_backward"]
    epoch = ["before_epoch", "run_epoch", *step, "update_lr", "after_epoch"]
    tested = ["after_train", "test", "parse_batch_test", "model_inference"]
    assert calls == [*HOOKS[:4], *epoch, *epoch, *tested]  # 12 images, batches of 8, 2 epochs


def test_each_epoch_of_a_training_has_an_order_of_its_own(make):
    orders = []

    class Watched(Plain):
        def forward_backward(self, batch):
            orders.append(batch["index"].tolist())
            return super().forward_backward(batch)

    trainer = make(Watched, "OPTIM.MAX_EPOCH", 2)
    trainer.train()
    expected = []
    for epoch in range(2):
        trainer.train_loader_x.set_epoch(epoch)
        expected += [batch["index"].tolist() for batch in trainer.train_loader_x]
    assert orders == expected and orders[0] != orders[1]


def test_a_trainer_that_knows_no_tasks(make):
    with pytest.raises(UserError, match=r"Plain does not know tasks, but Toy has 3: choose one"):
        make(task="all")
    trainer = make(Plain, "OPTIM.MAX_EPOCH", 3, "OPTIM.LR", 0.1)
    start = weights(trainer)
    trainer.train()
    assert not same(weights(trainer), start)
    assert trainer.sched.last_epoch == 3  # its own call in the last batch, and no other
    assert [task["total"] for task in trainer.results()["tasks"]] == [9]


def test_plain_accuracy_for_a_single_task(make):
    trainer = make(Plain, "TEST.EVALUATOR", "Classification")
    trainer.train()
    (task,) = trainer.results()["tasks"]
    assert (task["name"], task["total"]) == ("kind_of colour", 9)


class Bare(TrainerBase):
    """Models and nothing else."""


def registered(*names):
    trainer, weight = Bare(), nn.Linear(1, 1, bias=False)
    optim = torch.optim.SGD(weight.parameters(), lr=0.5)
    sched = torch.optim.lr_scheduler.ConstantLR(optim)
    for name in names:
        trainer.register_model(name, weight, optim, sched)
    return trainer, weight, optim, sched


def test_one_optimizer_under_three_names_steps_once():
    trainer, weight, optim, sched = registered("a", "b", "c")
    rate = optim.param_groups[0]["lr"]
    trainer.register_model("frozen", nn.Linear(1, 1))
    nn.init.ones_(weight.weight)
    trainer.model_backward_and_update((3 * weight.weight).sum())
    assert weight.weight.item() == pytest.approx(1 - 3 * rate)
    trainer.update_lr()
    assert sched.last_epoch == 1
    trainer.update_lr("b")
    trainer.update_lr(["a", "c"])
    assert sched.last_epoch == 3


def test_steps_can_be_repeated():
    trainer, weight, optim, sched = registered("a", "b")
    trainer.optim_steps_per_batch, trainer.sched_steps_per_epoch = 2, 3
    nn.init.ones_(weight.weight)
    rate = optim.param_groups[0]["lr"]
    trainer.model_backward_and_update(weight.weight.sum(), names=["a", "b"])
    trainer.update_lr()
    assert weight.weight.item() == pytest.approx(1 - 2 * rate)
    assert sched.last_epoch == 3


def test_gradients_do_not_add_up_over_batches():
    trainer, weight, optim, _ = registered("a")
    for _ in range(2):
        trainer.model_backward_and_update(weight.weight.sum())
    assert weight.weight.grad.item() == 1
    trainer.model_zero_grad()
    assert weight.weight.grad is None or not weight.weight.grad.any()
    assert trainer.get_current_lr() == optim.param_groups[0]["lr"]
    assert Bare().get_current_lr() == 0


def test_modes():
    trainer, weight, _, _ = registered("a")
    other = nn.Linear(1, 1)
    trainer.register_model("b", other)
    trainer.set_model_mode("eval")
    assert not weight.training
    assert not other.training
    trainer.set_model_mode("train", "b")
    assert other.training
    assert not weight.training
    trainer.set_model_mode("test", ["b"])
    assert not other.training


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.register_model("a", None), ValueError, "named 'a' is registered already"),
        (lambda t: t.get_model_names("x"), ValueError, r"no model named 'x'; registered: \['a'\]"),
        (lambda t: t.set_model_mode("fit"), ValueError, "mode must be one of .*, but got 'fit'"),
        (lambda t: t.detect_anomaly(torch.tensor(float("nan"))), FloatingPointError, "is nan; try"),
        (lambda t: t.detect_anomaly(float("inf")), FloatingPointError, "the loss is inf; try"),
        (lambda t: t.run_epoch(), NotImplementedError, "Bare must override run_epoch"),
        (lambda t: t.test(), NotImplementedError, "Bare must override test"),
        (lambda t: t.forward_backward({}), NotImplementedError, "override forward_backward"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call(registered("a")[0])


def test_a_trainer_must_build_a_model(make):
    with pytest.raises(NotImplementedError, match="Modelless must override build_model"):
        make(type("Modelless", (TrainerX,), {}))


def test_log_lines(run, tmp_path):
    recipe = ("OPTIM.WARMUP_EPOCH", 1, "OPTIM.WARMUP_TYPE", "constant")
    run("MTCoOpHard", *recipe, "TRAIN.PRINT_FREQ", 3, "TEST.PER_TASK_RESULT", "True")
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    steps = [line.split("\t") for line in lines if line.startswith("epoch [")]
    assert [step[0] for step in steps] == [
        f"epoch [{epoch}/2][{batch}/4]" for epoch in (1, 2) for batch in (3, 4)
    ]
    heads = ["epoch [", "time ", "data ", "images/s ", "eta ", "loss ", "lr "]
    for step in steps:
        assert all(part.startswith(head) for part, head in zip(step, heads, strict=True)), step
    assert [step[-1] for step in steps] == ["lr 1.000000e-05"] * 2 + ["lr 2.000000e-03"] * 2
    order = ["Finished training", "Do evaluation on test set", "=> result", "* total: 27"]
    places = [lines.index(line) for line in order]
    assert places == sorted(places)
    assert any(line.startswith("* task: 2 (stripes)\ttotal: 12\tmetric: ") for line in lines)
    assert any(line.startswith("Elapsed: 0:00:") for line in lines)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_dry_run_says_what_is_learned(build):
    lines = build("MTCoOp", "TRAINER.MTCOOP.TASK_N_CTX", 4).describe()
    assert lines[0] == f"prompt_learner: {64 * 16 * 64 + 4 * 64:,} trainable parameters"
    assert "  tasks.ctx (4, 64)" in lines
    assert lines[-1] == "4 steps per epoch, 2 epochs, one step per batch"
    assert build("ZeroshotCLIP").describe()[-1].startswith("0 steps per epoch, 0 epochs")
    each = build("CoOp").describe()
    assert each[:2] == ["each task separately:", "task 0 (kind_of colour)"]


def test_events_hold_the_curves(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    content = run("MTCoOpHard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "train/lr", "test/overall_metric"} <= set(tags)
    (last,) = events.Scalars("test/overall_metric")
    assert last.value == pytest.approx(content["suite"]["value"], rel=1e-5)


def test_states_are_read_without_running_code(run, tmp_path):
    run("MTCoOp")
    state = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    assert state["epoch"] == 2
    assert str(tmp_path) not in json.dumps(state, default=str)
