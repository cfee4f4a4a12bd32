"""TaskRes: its equation, its gradient, a few steps, and the classes that it is bound to."""

import pytest
import torch

from dassl.engine import Step
from prompting.templates import GENERAL
from tests.conftest import TASKS
from tests.reference import heads as naive

TASK2 = ("DATASET.SUBSAMPLE_TASKS", "task2")


def text_of(trainer, templates, task=TASKS[2]):
    """Mean text features (C, e) over templates, not normalised."""
    names = [name.replace("_", " ") for name in task.classnames]
    rows = [trainer.clip.text_tower.encode_text([t.format(n) for n in names]) for t in templates]
    return (sum(rows) / len(rows)).double()


@pytest.mark.parametrize("ensemble", [False, True])
def test_equals_naive_scores(build, close, one_task, ensemble):
    options = ("TRAINER.TASKRES.ALPHA", 0.7, "TRAINER.TASKRES.ENSEMBLE", ensemble)
    trainer = build("TaskRes", *options, *TASK2)
    residual = trainer.model.prompter.residual
    with torch.no_grad():
        residual.copy_(torch.randn(residual.shape, generator=torch.Generator().manual_seed(3)))
    templates = [*TASKS[2].templates, *(GENERAL if ensemble else ())]
    leaf = residual.detach().double().requires_grad_()
    images, scale = one_task["feat"].double(), trainer.clip.logit_scale.double()
    scores = naive.residual_scores(images, text_of(trainer, templates), leaf, 0.7, scale)
    output = trainer.forward(trainer.image_features(one_task))
    close(output.logits, scores)
    loss = trainer.compute_loss(output, one_task)["loss"]
    wanted = naive.cross_entropies(scores, one_task["label"].tolist()).mean()
    (mine,) = torch.autograd.grad(loss, [residual])
    (theirs,) = torch.autograd.grad(wanted, [leaf])
    close(mine, theirs, 3e-5)


def test_a_few_steps(build, close):
    """Adam adds the weight decay to the gradient."""
    steps = ("OPTIM.NAME", "adam", "OPTIM.LR", 0.002, "OPTIM.MAX_EPOCH", 4)
    trainer = build("TaskRes", *steps, *TASK2)
    trainer.set_model_mode("train")
    text, scale = text_of(trainer, TASKS[2].templates), trainer.clip.logit_scale.double()
    leaf = torch.zeros_like(text, requires_grad=True)
    optim = torch.optim.Adam([leaf], lr=0.002, weight_decay=trainer.cfg.OPTIM.WEIGHT_DECAY)
    for number, batch in enumerate(trainer.train_loader_x):
        features = trainer.image_features(batch)["global"].double()
        scores = naive.residual_scores(features, text, leaf, 0.5, scale)
        optim.zero_grad()
        naive.cross_entropies(scores, batch["label"].tolist()).mean().backward()
        optim.step()
        trainer.train_step(batch, Step(0, number, 100))
    assert number == 1
    close(trainer.model.prompter.residual, leaf.detach(), 1e-3)  # of steps of the size of LR


def test_starts_as_zero_shot(build):
    mine, clip = build("TaskRes", *TASK2), build("ZeroshotCLIP", *TASK2)
    images = {"global": torch.randn(4, 64)}
    torch.testing.assert_close(mine.forward(images).logits, clip.forward(images).logits)
