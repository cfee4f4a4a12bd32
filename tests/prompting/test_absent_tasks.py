"""Tasks absent from a batch are not encoded in training, and nothing learns otherwise for it."""

import pytest
import torch

from dassl.engine import Step
from tests.conftest import TASKS
from tests.trainers._methods import SOFTCPT_VARIANTS
from trainers._base import PromptTrainer

SIZES = [len(task.classnames) for task in TASKS]
BATCHES = [(0, 2), (1,), (0,), (0, 1, 2), (2,)]  # tasks of the first five of ten steps
VARIANTS = {
    **{name: ("MTCoOp", *switches) for name, switches in SOFTCPT_VARIANTS.items()},
    "shared": ("MTCoOpHard",),
    "TSC": ("MTCoOpHard", "TSC"),
    "per class": ("MTCoOpHard", "CSC"),
}
KEYS = {"MTCoOp": "MTCOOP", "MTCoOpHard": "MTCOOPH"}


def make(build, variant, *more):
    method, *switches = VARIANTS[variant]
    node = f"TRAINER.{KEYS[method]}."
    words = [node + "N_CTX", 4, *(w for switch in switches for w in (node + switch, "True"))]
    if method == "MTCoOp":
        words += [node + "TASK_N_CTX", 3, node + "CLASS_N_CTX", 2]
    return build(method, *words, "OPTIM.WEIGHT_DECAY", 0.01, *more)


def batch_of(tasks, seed):
    generator = torch.Generator().manual_seed(seed)
    task = torch.tensor(tasks).repeat(3)
    label = torch.stack([torch.randint(SIZES[t], (), generator=generator) for t in task])
    return {"feat": torch.randn(len(task), 64, generator=generator), "label": label, "task": task}


def ten_steps(trainer):
    for step in range(10):
        trainer.train_step(batch_of(BATCHES[step % 5], step), Step(0, step, 100))
    return trainer.model.prompter.state_dict()


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("adamw", 0.001)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_after_ten_steps(build, close, variant, optimizer, rate, monkeypatch):
    """Momentum and weight decay act on what an absent task owns, too."""
    how = ("OPTIM.NAME", optimizer, "OPTIM.LR", rate)
    few = ten_steps(make(build, variant, *how))
    monkeypatch.setattr(PromptTrainer, "needs_all_classes", True)
    whole = ten_steps(make(build, variant, *how))
    assert few.keys() == whole.keys()
    for key, tensor in whole.items():
        # ten steps at a high rate enlarge rounding, to 1.4e-5 at most; Adam divides gradients by
        # their own size, and with them the rounding of small ones
        close(few[key], tensor.double(), 3e-5 if optimizer == "sgd" else 1e-3)


@pytest.mark.parametrize("variant", ["NATS", "CSTS", "shared"])
def test_text_replayed_as_graphs(build, close, variant, emulated_graphs):
    """A graph encodes all tasks in every step; what is learned stays the same."""
    without = ten_steps(make(build, variant))
    trainer = make(build, variant, "COMPUTE.GRAPHS", True)
    tower = trainer.model.text.tower
    tower.tiles = True
    found = ten_steps(trainer)
    graphs = trainer.model.text.tower.graphs.graphs
    assert len(graphs) == {"NATS": 2, "CSTS": 3, "shared": 1}[variant]
    for key, tensor in without.items():
        close(found[key], tensor.double(), 1e-5)


@pytest.mark.parametrize("variant", ["NATS", "CSTS", "TSC", "per class"])
def test_what_absent_tasks_own_has_a_gradient_of_zero(build, variant):
    trainer = make(build, variant)
    trainer.train_step(batch_of((0, 2), 0), Step(0, 0, 100))
    for name, p in trainer.model.prompter.named_parameters():
        assert p.grad is not None and p.grad.any(), name
        owned = {3: [1], 9: [3, 4]}.get(len(p), []) if name.endswith("ctx") and p.dim() == 3 else []
        rows = [bool(row.any()) for row in p.grad] if owned else []
        assert [i for i, any_ in enumerate(rows) if not any_] == owned, name


def rows_of_step(trainer, batch):
    """Rows of text that a step computes."""
    trainer.train_step(batch, Step(0, 0, 100))
    with torch.no_grad(), trainer.model.text.counting() as counter:
        class_mask = trainer.dm.space.of_tasks(
            batch["task"], trainer.choose_classes(batch, Step(0, 0, 100))
        )
        trainer.forward({"global": batch["feat"]}, class_mask)
    return counter.rows


@pytest.mark.parametrize("variant", ["NATS", "CSTS", "TSC"])
def test_absent_tasks_are_not_computed(build, variant):
    rows = {tasks: rows_of_step(make(build, variant), batch_of(tasks, 0)) for tasks in BATCHES}
    sos = {"NATS": 1, "CSTS": 3, "TSC": 0}[variant]  # rows of each call that all prompts share
    assert rows[(0,)] + rows[(2,)] - sos == rows[(0, 2)] < rows[(0, 1, 2)]
    assert rows[(0,)] + rows[(1,)] + rows[(2,)] - 2 * sos == rows[(0, 1, 2)]


def test_sampled_classes_of_absent_tasks_are_not_computed(build, close, monkeypatch):
    """Their draws stay the same, so that what is learned does."""
    rate = ("TRAINER.MTCOOP.CLS_SAMPLE_RATE", 0.5)
    trainer = make(build, "CSTA", *rate)
    batch = batch_of((0, 2), 0)
    chosen = trainer.choose_classes(batch, Step(0, 0, 100))
    kept = trainer.dm.space.of_tasks(batch["task"], chosen)
    assert chosen[3:5].any() and not kept[3:5].any()
    assert torch.equal(kept[5:], chosen[5:]) and torch.equal(kept[:3], chosen[:3])
    few = ten_steps(make(build, "CSTA", *rate))
    monkeypatch.setattr(PromptTrainer, "needs_all_classes", True)
    whole = ten_steps(make(build, "CSTA", *rate))
    for key, tensor in whole.items():
        close(few[key], tensor.double(), 1e-5)


def test_a_class_context_that_is_not_learned_is_read_once(build):
    options = ("TRAINER.MTCOOP.FREEZE_CLS_PROMPT", 1)
    trainer = make(build, "CATA", *options)
    prompter, text = trainer.model.prompter, trainer.clip.text_tower
    trainer.train_step(batch_of((0, 1), 0), Step(0, 0, 100))
    first = prompter.class_features(text)
    assert torch.equal(first, text.encode(prompter.classes()))
    trainer.train_step(batch_of((0, 2), 1), Step(0, 0, 100))
    assert prompter.class_features(text) is first
    other = make(build, "CATA", *options, "TRAINER.MTCOOP.CLASS_CTX_INIT", "a photo")
    prompter.load_state_dict(other.model.prompter.state_dict())
    assert torch.equal(prompter.class_features(text), other.model.prompter.class_features(text))
    assert not torch.equal(prompter.class_features(text), first)


def test_class_features_need_contexts_per_class(build):
    trainer = make(build, "NATA")
    with pytest.raises(RuntimeError, match="CSC"):
        trainer.model.prompter.class_features(trainer.clip.text_tower)
