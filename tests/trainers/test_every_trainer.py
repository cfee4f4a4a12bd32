"""What every registered method must do, on the toy suite."""

import json
from dataclasses import replace

import pytest
import torch

from clip import load_backbone
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.tasks import TaskSpace
from dassl.engine import TRAINER_REGISTRY, Step
from dassl.utils import UserError, load_checkpoint
from results.schema import SCHEMA
from tests.conftest import TASKS, backbone_of, toy_class
from tests.trainers._methods import (
    METHODS,
    VARIANTS,
    WITHOUT_HEAD,
    guessing,
    learned,
    optimizer,
    options,
    preset,
    training_loss,
)

PROTOCOL = {
    *("name", "suite", "tasks", "classes", "shots", "seed", "trainer", "method", "options"),
    *("backbone", "split", "selection", "metric_rule", "steps_rule"),
}


@pytest.mark.parametrize("method", METHODS)
def test_has_a_preset_without_data_and_weights(method):
    assert preset(method)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """KEY VALUE words: image features are stored, for all tests, by the first that needs them."""
    return "FEATURES.MODE", "full", "FEATURES.DIR", tmp_path_factory.mktemp("features")


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_learns_and_leaves_clip_alone(build, variant, features):
    clip_model = load_backbone(backbone_of(variant[0]))
    before = {k: v.clone() for k, v in [*clip_model.state_dict().items()]}
    buffers = {k: v.clone() for k, v in clip_model.named_buffers()}
    assert buffers or backbone_of(variant[0]) != "tiny/random"  # ResNets have batch statistics
    steps = ("OPTIM.MAX_EPOCH", 10, "OPTIM.LR", 0.02, *optimizer(variant[0]))
    trainer = build(*variant[:1], *options(*variant[1:]), *steps, *features)
    starts = {name: p.detach().clone() for name, p in learned(trainer).items()}
    loss = training_loss(trainer)
    trainer.train()
    for name, value in {**clip_model.state_dict(), **dict(clip_model.named_buffers())}.items():
        assert torch.equal(value, before.get(name, buffers.get(name))), name
    assert not clip_model.training
    for name, start in starts.items():
        assert not torch.equal(start, learned(trainer)[name]), f"{name} has not moved"
    count = sum(p.numel() for p in learned(trainer).values())
    assert count == trainer.results()["trainable"]["parameters"]
    if starts:  # at least halfway down to the loss of guessing; untrained images tell no more
        chance = guessing(trainer)
        assert training_loss(trainer) - chance < (loss - chance) / 2
    elif trainer.task_trainers[0].steps_rule == "fitted":
        assert training_loss(trainer) < loss
    else:
        assert training_loss(trainer) == loss


@pytest.mark.parametrize("dataset", ["Toy", "ToyGroups"])
@pytest.mark.parametrize("method", METHODS)
def test_results_are_complete(run, tmp_path, method, dataset):
    content = run(method, *options(), dataset=dataset)
    path = tmp_path / "run" / "results.json"
    assert json.loads(path.read_text()) == content
    assert str(tmp_path) not in path.read_text()
    assert content["schema"] == SCHEMA
    assert content["status"] == "complete"
    assert set(content["protocol"]) == PROTOCOL
    assert content["protocol"]["trainer"] == method
    assert content["protocol"]["suite"] == dataset
    assert content["protocol"]["seed"] == 1
    weights = load_backbone(backbone_of(method)).weights_hash
    assert content["hashes"]["weights"] == weights
    assert len(content["hashes"]["data"]) == len(content["hashes"]["experiment"]) == 64
    groups = ["looks", "looks", "patterns"] if dataset == "ToyGroups" else [""] * 3
    for t, found in enumerate(content["tasks"]):
        assert found["id"] == t
        assert (found["name"], found["metric"]) == (TASKS[t].name, TASKS[t].metric)
        assert found["group"] == groups[t]
        assert found["total"] == 3 * len(TASKS[t].classnames)
        # equally many images of each class: both metrics are correct / total
        assert found["value"] == pytest.approx(100 * found["correct"] / found["total"])
    values = [found["value"] for found in content["tasks"]]
    if dataset == "Toy":
        assert content["suite"]["value"] == pytest.approx(sum(values) / 3)
        assert content["suite"]["groups"] == {}
    else:
        assert content["suite"]["value"] is None
        expected = {"looks": sum(values[:2]) / 2, "patterns": values[2]}
        assert content["suite"]["groups"] == pytest.approx(expected)
    cost = content["run"]
    assert cost["device"]
    assert cost["seconds"] > 0
    assert cost["peak_memory"] > 0
    assert set(cost["time_split"]) == {"data", "image", "text", "rest"}
    assert all(seconds >= 0 for seconds in cost["time_split"].values())
    assert 0 < sum(cost["time_split"].values()) <= cost["seconds"]
    assert {"python", "torch", "open_clip_torch"} <= set(cost["versions"])


def stop_after_an_epoch(trainer):
    if trainer.epoch:
        raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_continues_as_if_it_had_not_stopped(
    build, tmp_path, monkeypatch, method
):
    words = (method, *options(), "DATASET.SUBSAMPLE_TASKS", "task0")
    whole = build(*words, output=tmp_path / "whole")
    whole.train()
    if not whole.optimizers():
        return
    stopped = build(*words, output=tmp_path / "stopped")
    monkeypatch.setattr(stopped, "before_epoch", lambda: stop_after_an_epoch(stopped))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = build(*words, output=tmp_path / "stopped")
    resumed.train()
    assert resumed.start_epoch == 1
    expected = whole.model.prompter.state_dict()
    for name, value in resumed.model.prompter.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("t", [0, 1, 2])
def test_a_suite_task_by_task_is_each_task_alone(run, tmp_path, t):
    suite = run("CoOp", *options(), output=tmp_path / "suite")
    choice = ("DATASET.SUBSAMPLE_TASKS", f"task{t}")
    alone = run("CoOp", *options(), *choice, output=tmp_path / "alone")
    assert {**alone["tasks"][0], "id": t} == suite["tasks"][t]
    checkpoints = [
        load_checkpoint(tmp_path / folder / "prompt_learner" / "model.pth.tar-2")["state_dict"]
        for folder in (f"suite/task{t}", "alone")
    ]
    assert torch.equal(checkpoints[0]["prompts.ctx"], checkpoints[1]["prompts.ctx"])


@pytest.mark.parametrize("method", ["CoOp", "LinearProbe", "MTCoOp"])
def test_a_task_without_training_images_is_refused_before_any_training(run, sparse, capsys, method):
    words = (*options(), "OPTIM.MAX_EPOCH", 1)
    if TRAINER_REGISTRY.get(method).suite == "joint":
        assert run(method, *words, dataset="Sparse")["status"] == "complete"
        return
    with pytest.raises(UserError, match=r"task 1 \(light or dark\): Sparse has no training"):
        run(method, *words, dataset="Sparse")
    assert "epoch [" not in capsys.readouterr().out


@pytest.fixture
def sparse(toy_folder):
    """Registers Sparse: the toy suite without training images of task 1."""
    base = toy_class("Sparse", toy_folder)

    def init(self, cfg):
        base.__init__(self, cfg)
        self.train_x = [item for item in self.train_x if item.task != 1]

    DATASET_REGISTRY.register()(type("Sparse", (base,), {"__init__": init}))
    yield
    DATASET_REGISTRY._classes.pop("Sparse")


@pytest.fixture
def renamed(toy_folder):
    """Registers NewClasses and NewTasks: the toy suite with other names of classes or tasks."""

    def register(dataset, **changes):
        def init(self, cfg):
            super(cls, self).__init__(cfg)
            tasks = [
                replace(task, **{key: change(task) for key, change in changes.items()})
                for task in self.space.tasks
            ]
            self.space = TaskSpace(tuple(tasks))

        cls = type(dataset, (toy_class(dataset, toy_folder),), {"__init__": init})
        DATASET_REGISTRY.register()(cls)

    register("NewClasses", classnames=lambda task: tuple(f"new {n}" for n in task.classnames))
    register("NewTasks", name=lambda task: f"new {task.name}")
    yield
    for name in ("NewClasses", "NewTasks"):
        DATASET_REGISTRY._classes.pop(name)


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_new_classes(build, run, renamed, tmp_path, variant):
    """Learned tensors that grow with the classes, or the images of them, serve no other classes."""
    method, words = variant[0], options(*variant[1:])
    shapes = []
    for task in ("task0", "task1"):  # of three and of two classes
        prompter = build(method, *words, "DATASET.SUBSAMPLE_TASKS", task).model.prompter
        shapes.append({name: x.shape for name, x in prompter.state_dict().items()})
    if not shapes[0]:
        return
    run(method, *words, "OPTIM.MAX_EPOCH", 1)
    how = {"flags": ("--eval-only", "--model-dir", str(tmp_path / "run")), "dataset": "NewClasses"}
    if shapes[0] == shapes[1] or method in WITHOUT_HEAD:
        assert run(method, *words, output=tmp_path / "new", **how)["tasks"]
        return
    with pytest.raises(UserError, match="set of names"):
        run(method, *words, output=tmp_path / "new", **how)


@pytest.mark.parametrize(
    ("method", "switches", "passes"),
    [
        ("MTCoOp", [], True),
        ("MTCoOp", ["MTCOOP.TASK_CSC"], False),
        ("MTCoOp", ["MTCOOP.TASK_VECTORS"], False),
        ("MTCoOpHard", [], True),
        ("MTCoOpHard", ["MTCOOPH.TSC"], False),
        ("LinearProbe", [], True),
    ],
)
def test_new_tasks(build, run, renamed, tmp_path, method, switches, passes):
    """What is learned per task does not go on to tasks of other names."""
    run(method, *options(*switches), "OPTIM.MAX_EPOCH", 1)
    trainer = build(method, *options(*switches), dataset="NewTasks", output=tmp_path / "new")
    if passes:
        trainer.load_model(tmp_path / "run")
        return
    with pytest.raises(UserError, match="was trained with another set of names"):
        trainer.load_model(tmp_path / "run")


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_holds_what_is_learned(build, method):
    """All of it, and nothing of the frozen CLIP."""
    for part in build(method, *options()).task_trainers:
        state = part.model.prompter.state_dict()
        assert {name for name, _ in part.model.prompter.named_parameters()} <= state.keys()
        frozen = {tensor.data_ptr() for tensor in part.clip.state_dict().values()}
        assert not frozen & {tensor.data_ptr() for tensor in state.values()}


@pytest.mark.parametrize("method", METHODS)
def test_a_step_in_half_precision_goes_the_same_way(build, monkeypatch, method):
    """As under PREC amp on a GPU: towers rounded, gradients finite and nearly the same."""
    grads = []
    for enabled in (False, True):
        trainer = build(method, *options(), "DATASET.SUBSAMPLE_TASKS", "task2")
        if not trainer.optimizers():
            return
        rounding = torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)
        monkeypatch.setattr(trainer, "autocast", lambda rounding=rounding: rounding)
        trainer.train_step(next(iter(trainer.train_loader_x)), Step(0, 0, 2))
        learned = trainer.model.prompter.parameters()
        grads.append(torch.cat([p.grad.flatten() for p in learned if p.grad is not None]))
    exact, rounded = grads
    assert rounded.isfinite().all()
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.9
