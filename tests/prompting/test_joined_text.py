"""Several runs whose text passes are joined: each learns what it learns alone."""

import random
from dataclasses import replace

import pytest
import torch

from clip import load_backbone
from clip.text import Prompts
from dassl.engine import Step
from dassl.utils.lockstep import Lockstep
from prompting import joined_text
from prompting.joined_text import join
from trainers._base import PromptTrainer

SIZES = [3, 2, 4]  # classes of the toy suite's tasks
RUNS = {
    "NATA": ("MTCoOp",),
    "CSTS": ("MTCoOp", *("TRAINER.MTCOOP.CSC", "True", "TRAINER.MTCOOP.CLASS_CSC", "True")),
    "sampled": ("MTCoOp", "TRAINER.MTCOOP.CSC", "True", "TRAINER.MTCOOP.CLS_SAMPLE_RATE", 0.5),
    "CoOp-MT": ("MTCoOpHard",),
    "CoOp-MT 2": ("MTCoOpHard", "SEED", 2),
    "CoOp": ("CoOp",),
    "KgCoOp": ("KgCoOp",),
    "ProGrad": ("ProGrad",),
    "PLOT": ("PLOT",),
    "CoCoOp": ("CoCoOp",),
}
DIVERGES = ("MTCoOpHard", "OPTIM.LR", 1e30)


def batch_of(trainer, step):
    generator = torch.Generator().manual_seed(step)
    space = trainer.dm.space
    task = torch.arange(6) % len(space.tasks)
    label = torch.stack([torch.randint(space.sizes[t], (), generator=generator) for t in task])
    features = {"feat": torch.randn(6, 64, generator=generator)}
    features["local"] = torch.randn(6, 49, 64, generator=generator)
    return {**features, "label": label, "task": task}


def learned(build, words, steps):
    """What a run has learned; an error if it diverges."""
    trainer = build(*words).task_trainers[0]
    for step in range(steps):
        trainer.train_step(batch_of(trainer, step), Step(0, step, 100))
    return trainer.model.prompter.state_dict()


def together(build, runs, steps=50):
    found = {}
    with Lockstep() as group:
        for name, words in runs.items():
            group.start(name, lambda words=words: learned(build, words, steps))
        while group.strands:
            found |= {s.name: s.error or s.result for s in group.round()}
    return found


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (("NATA", "CoOp-MT", "CoOp-MT 2", "ProGrad"), 4),
        # CoCoOp's prefix is shorter
        pytest.param(tuple(RUNS), len(RUNS) - 1, marks=pytest.mark.slow),
    ],
)
def test_fifty_steps_are_those_of_each_alone(build, close, monkeypatch, names, joined):
    counts = []
    monkeypatch.setattr(joined_text, "join", lambda p: counts.append(len(p)) or join(p))
    found = together(build, {name: RUNS[name] for name in names})
    assert max(counts) == joined
    for name in names:
        words = RUNS[name]
        assert not isinstance(found[name], BaseException), found[name]
        for key, tensor in learned(build, words, 50).items():
            close(found[name][key], tensor.double(), 1e-5)


def test_a_run_that_diverges_leaves_the_others_alone(build, close):
    runs = {"a": RUNS["CoOp-MT"], "bad": DIVERGES, "b": RUNS["CoOp-MT 2"]}
    found = together(build, runs, steps=10)
    assert isinstance(found["bad"], FloatingPointError)
    for name in "ab":
        for key, tensor in learned(build, runs[name], 10).items():
            close(found[name][key], tensor.double(), 1e-5)


def test_a_loss_that_is_not_checked_spreads_no_gradient(build, close, monkeypatch):
    """On a GPU the loss is looked at later: the backward pass of NaN is not joined."""
    monkeypatch.setattr(PromptTrainer, "detect_anomaly", lambda self, loss: None)
    runs = {"a": RUNS["CoOp-MT"], "bad": DIVERGES}
    found = together(build, runs, steps=10)
    assert not all(x.isfinite().all() for x in found["bad"].values())
    for key, tensor in learned(build, runs["a"], 10).items():
        close(found["a"][key], tensor.double(), 1e-5)


def some_prompts(rng, tower, deep):
    """Random prompts with a prefix of 5 tokens."""
    groups, n, width = rng.randint(1, 3), rng.randint(1, 5), rng.randint(2, 6)
    generator = torch.Generator().manual_seed(rng.randrange(1000))

    def draw(*shape):
        return torch.randn(*shape, tower.width, generator=generator) / 10

    sos = tower.embed(torch.tensor([[tower.tokenizer.sot_token_id]])).expand(groups, 1, -1)
    index = torch.tensor([rng.randrange(n) for _ in range(n)]) if rng.random() < 0.5 else None
    return Prompts(
        prefix=torch.cat([sos, draw(groups, 4)], 1),
        suffix=draw(n, width),
        group=torch.tensor([rng.randrange(groups) for _ in range(n)]),
        eot=torch.tensor([rng.randrange(width) for _ in range(n)]),
        suffix_index=index,
        deep={1: draw(groups, 2)} if deep else {},
    )


@pytest.mark.parametrize("seed", range(8))
def test_any_prompts(seed, close):
    rng = random.Random(seed)
    tower = load_backbone("tiny/random", device="cpu").text_tower
    sets = [some_prompts(rng, tower, deep=seed % 2) for _ in range(3)]
    found = tower.encode(join(sets)).split([len(prompts.group) for prompts in sets])
    for features, prompts in zip(found, sets, strict=True):
        close(features, tower.encode(replace(prompts)).double(), 1e-5)
