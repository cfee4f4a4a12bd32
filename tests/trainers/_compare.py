"""The comparison of a trainer with naive text features."""

import pytest
import torch

from tests.conftest import TASKS
from tests.reference import prompts as naive

SIZES = [len(task.classnames) for task in TASKS]
NAMES = [name for task in TASKS for name in task.classnames]
OWNER = [t for t, size in enumerate(SIZES) for _ in range(size)]
KEEP = torch.tensor([1, 0, 1, 0, 1, 0, 1, 1, 0]).bool()  # classes 0, 2 | 1 | 1, 2 of the tasks
SCORED = torch.tensor([1, 0, 1, 0, 0, 0, 1, 1, 0]).bool()  # those of the tasks in KEPT_BATCH
KEPT_BATCH = {"label": torch.tensor([0, 2, 1, 2, 2]), "task": torch.tensor([0, 0, 2, 2, 0])}


def compare(trainer, batch, expected, naive_ctx, close, keep=None, smoothing=0.0):
    """The trainer's logits, loss and gradients against those of naive text features."""
    prompter = trainer.model.prompter
    logits = trainer.compute_logits({"global": batch["feat"]}, keep)
    loss = trainer.compute_loss(logits, batch, keep)["loss"]
    scale = trainer.clip.logit_scale.double()
    scores = naive.logits(batch["feat"].double(), expected, scale)
    kept = slice(None) if keep is None else keep
    close(logits[:, kept], scores[:, kept])
    wanted = naive.loss(
        scores, batch["label"].tolist(), batch["task"].tolist(), SIZES, keep, smoothing
    )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    learned = [p for p in prompter.parameters() if p.requires_grad]
    # a tensor that the equations do not use has no gradient: the task context under lincls
    found = torch.autograd.grad(loss, learned, allow_unused=True)
    expected_grads = torch.autograd.grad(wanted, naive_ctx, allow_unused=True)
    for mine, theirs in zip(found, expected_grads, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            close(mine, theirs)
    return found


def naive_leaf(parameter):
    return parameter.detach().double().requires_grad_()


def wide(parameter):
    """Contexts far from zero: an error in their place then shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
