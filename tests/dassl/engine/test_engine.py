"""The engine by itself: a trainer without CLIP on the toy images."""

import copy
import json

import pytest
import torch
from torch import nn

import train
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY, EachTask, TrainerBase, TrainerX, build_trainer
from dassl.engine.resume import load_resume, random_state, save_resume, set_random_state
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import UserError, set_random_seed
from tests.conftest import SMALL, toy_args

HOOKS = (
    *("check_cfg", "build_data_loader", "build_model", "before_train", "before_epoch"),
    *("run_epoch", "forward_backward", "update_lr", "after_epoch", "after_train", "test"),
    *("parse_batch_test", "model_inference"),
)


class Plain(TrainerX):
    """A trainer as written for Dassl: no ``suite``, its own forward_backward and update_lr."""

    def build_model(self):
        classes = self.dm.num_classes
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes), nn.Dropout(0.1))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss = nn.functional.cross_entropy(self.model(image), label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}


class Each(Plain):
    """The same, one task at a time."""

    suite = "each"


@pytest.fixture
def make(toy, tmp_path, register_trainer):
    """``make(cls, KEY, VALUE, ..., output=)`` registers and builds a trainer on one toy task."""
    for cls in (Plain, Each):
        register_trainer(cls)

    def go(cls=Plain, *opts, output=tmp_path / "run", task="task0", before=()):
        cfg = get_cfg_default()
        size = ("INPUT.SIZE", "(32, 32)", "INPUT.INTERPOLATION", "bilinear")
        words = [*SMALL, *size, "INPUT.TRANSFORMS", "()", "SEED", "1", "VERBOSE", "False"]
        words += ["DATASET.NAME", "Toy", "DATASET.SUBSAMPLE_TASKS", task]
        words += ["OUTPUT_DIR", str(output), "TRAINER.NAME", cls.__name__, *map(str, opts)]
        cfg.merge_from_list(words)
        cfg.freeze()
        set_random_seed(1)
        if cls.__name__ not in TRAINER_REGISTRY:
            register_trainer(cls)  # a trainer of one test
        return build_trainer(cfg)

    return go


def weights(trainer):
    return {k: v.clone() for k, v in trainer._models["model"].state_dict().items()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a | b)


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


# ---------------------------------------------------------------- registered models


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


# ---------------------------------------------------------------- saving and choosing a model


def saved(folder):
    return sorted(p.name for p in (folder / "model").glob("model*"))


@pytest.mark.parametrize(("every", "epochs"), [(0, [5]), (2, [2, 4, 5]), (1, [1, 2, 3, 4, 5])])
def test_checkpoint_freq(make, tmp_path, every, epochs):
    make(Plain, "TRAIN.CHECKPOINT_FREQ", every, "OPTIM.MAX_EPOCH", 5).train()
    assert saved(tmp_path / "run") == [f"model.pth.tar-{e}" for e in epochs]
    assert (tmp_path / "run" / "model" / "checkpoint").read_text().strip() == "model.pth.tar-5"


class Scripted(Plain):
    """A trainer whose validation results are given, and that keeps its weights of each epoch."""

    script = [10.0, 40.0, 30.0, 40.0]

    def test(self, split=None):
        if split == "val":
            self.kept = [*getattr(self, "kept", []), weights(self)]
            return self.script[self.epoch]
        self.tested = weights(self)
        return super().test(split)


def test_best_val_tests_the_first_best_epoch(make, tmp_path):
    trainer = make(Scripted, "TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", 4)
    trainer.train()
    assert not same(trainer.kept[1], trainer.kept[3])
    assert same(trainer.tested, trainer.kept[1])
    assert saved(tmp_path / "run") == ["model-best.pth.tar", "model.pth.tar-4"]
    other = make(Scripted, output=tmp_path / "other")
    other.load_model(tmp_path / "run")  # no epoch: the best
    assert same(weights(other), trainer.kept[1])
    other.load_model(tmp_path / "run", epoch=4)
    assert same(weights(other), trainer.kept[3])


def test_last_step_needs_no_validation(make, tmp_path):
    trainer = make(Scripted, "OPTIM.MAX_EPOCH", 4)
    trainer.train()
    assert not hasattr(trainer, "kept")
    assert same(trainer.tested, weights(trainer))
    other = make(Scripted, output=tmp_path / "other")
    other.load_model(tmp_path / "run")  # no epoch: the last
    assert same(weights(other), weights(trainer))
    other.load_model("")  # nothing to load


def test_no_test(make):
    trainer = make(Scripted, "TEST.NO_TEST", "True", "TEST.FINAL_MODEL", "best_val")
    trainer.train()
    assert not hasattr(trainer, "tested")
    assert trainer.results()["tasks"] == []


def test_no_test_of_a_suite(run):
    content = run("CoOp", "TEST.NO_TEST", "True", "OPTIM.MAX_EPOCH", 1)
    assert content["tasks"] == []
    assert content["suite"]["value"] is None


class Peeking(Plain):
    """Looks at the test images before training is over."""

    def after_epoch(self):
        super().after_epoch()
        self.test("test")


def test_test_images_wait_until_the_model_is_chosen(make):
    trainer = make(Peeking)
    with pytest.raises(RuntimeError, match="the test images wait until the model is chosen"):
        trainer.train()
    assert trainer.test() >= 0  # nothing is being chosen any more


class ValIsTest(Plain):
    """Toy whose validation images are its test images."""

    def build_data_loader(self):
        super().build_data_loader()
        data = self.dm.dataset
        data._val, self.val_loader = data.test, self.test_loader


def test_models_are_not_chosen_on_test_images(make):
    with pytest.raises(UserError, match=r"best_val would be selected on .*, such as .*\.png"):
        make(ValIsTest, "TEST.FINAL_MODEL", "best_val")
    make(ValIsTest, "TEST.FINAL_MODEL", "best_val", "TEST.SPLIT", "val")
    make(ValIsTest).train()


@pytest.mark.parametrize("choice", ["last_step", "best_val"])
def test_the_record_says_how_the_model_is_chosen(run, choice):
    opts = ("TEST.FINAL_MODEL", choice, "OPTIM.MAX_EPOCH", 1)
    assert run("CoOp", *opts)["protocol"]["selection"] == choice


def test_validation_images_can_be_tested_on(make):
    trainer = make(Plain, "TEST.SPLIT", "val")
    trainer.train()
    assert trainer.results()["tasks"][0]["total"] == 6


class NoVal(Plain):
    """Toy without validation images."""

    def build_data_loader(self):
        super().build_data_loader()
        self.val_loader = None


class NoTrain(Plain):
    """Toy without training images."""

    def build_data_loader(self):
        super().build_data_loader()
        self.train_loader_x = None


@pytest.mark.parametrize(
    ("cls", "key", "value", "message"),
    [
        (Plain, "TEST.FINAL_MODEL", "best", "TEST.FINAL_MODEL takes .*; got 'best'; did you mean"),
        (Plain, "TEST.SPLIT", "train", "TEST.SPLIT takes .*; got 'train'"),
        (NoVal, "TEST.FINAL_MODEL", "best_val", "Toy has no val images; choose another"),
        (NoVal, "TEST.SPLIT", "val", "Toy has no val images; choose another"),
        (Plain, "TRAINER.NAME", "plain", "no trainer named 'plain'; did you mean Plain"),
    ],
)
def test_refused_before_the_first_batch(make, cls, key, value, message):
    with pytest.raises(UserError, match=message):
        make(cls, key, value)


def test_no_training_images(make):
    trainer = make(NoTrain)
    assert trainer.describe()[-1].startswith("0 steps per epoch")
    with pytest.raises(UserError, match="Toy has no training images"):
        trainer.train()
    assert trainer.test() >= 0  # there is something to evaluate


def test_starting_weights(make, tmp_path):
    first = make()
    first.train()
    path = tmp_path / "run" / "model" / "model.pth.tar-2"
    second = make(Plain, "MODEL.INIT_WEIGHTS", path, output=tmp_path / "other")
    assert same(weights(second), weights(first))


# ---------------------------------------------------------------- load_model


@pytest.fixture
def trained(run, tmp_path):
    """The folder of a finished CoOp-CS run on the suite's first task."""
    run("CoOp", "TRAINER.COOP.CSC", "True", "DATASET.SUBSAMPLE_TASKS", "task0")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("trainer", "opts", "epoch", "message"),
    [
        ("CoOp", ("TRAINER.COOP.CSC", "True"), 7, r"no checkpoint .*tar-7; .* holds .*tar-2"),
        ("MTCoOp", (), 2, "does not fit this trainer .* tasks.ctx is missing"),
        ("CoOp", (), 2, r"ctx has shape \(3, 16, 64\), here \(16, 64\)"),
        (
            "CoOp",
            ("TRAINER.COOP.CSC", "True", "DATASET.SUBSAMPLE_TASKS", "task2"),
            2,
            r"shape \(3, 16, 64\), here \(4, 16, 64\).*another method, backbone, context or set",
        ),
    ],
)
def test_checkpoints_of_something_else(build, trained, trainer, opts, epoch, message):
    other = build(trainer, "DATASET.SUBSAMPLE_TASKS", "task0", *opts)
    with pytest.raises(UserError, match=message):
        other.load_model(trained, epoch=epoch)


def test_checkpoint_of_another_backbone(trained, toy):
    args = toy_args("CoOp", "TRAINER.COOP.CSC", "True", "DATASET.SUBSAMPLE_TASKS", "task0")
    args.backbone = "ViT-S-32/random"  # a text tower of width 384
    other = build_trainer(train.setup_cfg(args))
    with pytest.raises(UserError, match=r"shape \(3, 16, 64\), here \(3, 16, 384\)"):
        other.load_model(trained, epoch=2)


def test_shared_context_goes_to_other_classes(build, run, tmp_path):
    run("CoOp", "DATASET.SUBSAMPLE_TASKS", "task0")
    other = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task2")
    before = other.model.prompter.prompts.ctx.clone()
    other.load_model(tmp_path / "run", epoch=2)
    assert not torch.equal(other.model.prompter.prompts.ctx, before)
    other.test()
    assert other.results()["tasks"][0]["total"] == 12


# ---------------------------------------------------------------- resuming


class Stopped(RuntimeError):
    """Stands for a killed process."""


def stop_at(trainer, epoch):
    """Let a trainer fail at the start of an epoch."""
    whole = trainer.before_epoch

    def before_epoch():
        if trainer.epoch == epoch:
            raise Stopped
        whole()

    trainer.before_epoch = before_epoch


@pytest.mark.parametrize("final", ["last_step", "best_val"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_resumed_training_is_the_uninterrupted_one(make, tmp_path, name, final):
    opts = ("OPTIM.MAX_EPOCH", 5, "OPTIM.NAME", name, "TEST.FINAL_MODEL", final)
    whole = make(Plain, *opts, output=tmp_path / "whole")
    whole.train()
    first = make(Plain, *opts)
    stop_at(first, 3)
    with pytest.raises(Stopped):
        first.train()
    torch.manual_seed(99)  # the other process has gone, and its generators with it
    second = make(Plain, *opts)
    second.train()
    assert second.start_epoch == 3
    assert same(weights(second), weights(whole))  # dropout included
    assert second.results() == whole.results()
    assert second.best_result == whole.best_result
    third = make(Plain, *opts)
    third.train()
    assert third.start_epoch == 5
    assert third.results() == whole.results()


def test_states_are_written_at_most_every_so_many_seconds(make, tmp_path):
    opts = ("OPTIM.MAX_EPOCH", 4, "TRAIN.RESUME_SECONDS", 1000)
    whole = make(Plain, *opts, output=tmp_path / "whole")
    whole.train()
    assert torch.load(tmp_path / "whole" / "resume.pt", weights_only=True)["epoch"] == 4
    first = make(Plain, *opts)
    stop_at(first, 3)
    with pytest.raises(Stopped):
        first.train()
    assert not (tmp_path / "run" / "resume.pt").exists()
    again = make(Plain, *opts)
    again.train()
    assert again.start_epoch == 0
    assert same(weights(again), weights(whole))


@pytest.mark.parametrize("damage", ["broken", "gone"])
def test_a_broken_state_falls_back_to_the_one_before(make, tmp_path, damage, capsys):
    opts = ("OPTIM.MAX_EPOCH", 4)
    whole = make(Plain, *opts)
    whole.train()
    newest = tmp_path / "run" / "resume.pt"
    if damage == "broken":
        newest.write_bytes(newest.read_bytes()[:200])
    else:
        newest.unlink()
    again = make(Plain, *opts)
    again.train()
    assert again.start_epoch == 3
    assert same(weights(again), weights(whole))


def test_going_on_from_another_folder(make, tmp_path):
    whole = make(Plain, "OPTIM.MAX_EPOCH", 4, "OPTIM.LR_SCHEDULER", "constant")
    stop_at(whole, 2)
    with pytest.raises(Stopped):
        whole.train()
    opts = ("RESUME", tmp_path / "run", "OPTIM.MAX_EPOCH", 6, "OPTIM.LR_SCHEDULER", "constant")
    longer = make(Plain, *opts, output=tmp_path / "longer")
    longer.train()
    assert longer.start_epoch == 2
    assert (tmp_path / "longer" / "model" / "model.pth.tar-6").exists()


@pytest.mark.parametrize("stop", [(0, 1), (1, 1), (2, 0)])
def test_each_task_resumes_where_it_stopped(make, tmp_path, stop):
    opts = ("OPTIM.MAX_EPOCH", 3)
    whole = make(Each, *opts, task="all", output=tmp_path / "whole")
    assert isinstance(whole, EachTask)
    whole.train()
    first = make(Each, *opts, task="all")
    task, epoch = stop
    stop_at(first.task_trainers[task], epoch)
    with pytest.raises(Stopped):
        first.train()
    second = make(Each, *opts, task="all")
    second.train()
    starts = [trainer.start_epoch for trainer in second.task_trainers]
    assert starts == [3] * task + [epoch] + [0] * (2 - task)
    assert second.results() == whole.results()
    for mine, theirs in zip(second.task_trainers, whole.task_trainers, strict=True):
        assert same(weights(mine), weights(theirs))


def test_each_task_goes_on_from_another_folder(make, tmp_path):
    make(Each, task="all").train()
    longer = make(
        Each, "RESUME", tmp_path / "run", "OPTIM.MAX_EPOCH", 3, task="all", output=tmp_path / "b"
    )
    longer.train()
    assert [trainer.start_epoch for trainer in longer.task_trainers] == [2, 2, 2]


def test_state_of_other_models_is_refused(make, tmp_path):
    trainer = make()
    save_resume(trainer, tmp_path / "run", 1)
    other = make()
    other.register_model("more", nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"holds the models \['model'\], but this trainer has"):
        load_resume(other, tmp_path / "run")


def test_all_generators_are_put_back():
    import random

    import numpy as np

    state = copy.deepcopy(random_state())

    def draw():
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()

    first = draw()
    draw()
    set_random_state(state)
    assert draw() == first


def test_extra_state_travels(make, tmp_path):
    class Counting(Plain):
        count = 0

        def after_epoch(self):
            self.count += 1
            super().after_epoch()

        def extra_state(self):
            return {"count": self.count}

        def load_extra_state(self, state):
            self.count = state["count"]

    first = make(Counting, "OPTIM.MAX_EPOCH", 4)
    stop_at(first, 2)
    with pytest.raises(Stopped):
        first.train()
    second = make(Counting, "OPTIM.MAX_EPOCH", 4)
    second.train()
    assert second.count == 4


# ---------------------------------------------------------------- the log


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
    assert each[:2] == ["each task by itself:", "task 0 (kind_of colour)"]


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
