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


def compare(trainer, batch, expected, naive_ctx, close, class_mask=None, smoothing=0.0):
    """The trainer's logits, loss and gradients against those of naive text features."""
    scale = trainer.clip.logit_scale.double()
    scores = naive.logits(batch["feat"].double(), expected, scale)
    wanted = naive.loss(
        scores, batch["label"].tolist(), batch["task"].tolist(), SIZES, class_mask, smoothing
    )
    return agree(trainer, batch, scores, {"loss": wanted}, naive_ctx, close, class_mask)


def agree(trainer, batch, scores, losses, leaves, close, class_mask=None):
    """The trainer's logits, named losses and their gradient against naive ones."""
    output = trainer.forward(trainer.image_features(batch), class_mask)
    logits = output.logits
    kept = slice(None) if class_mask is None else class_mask
    close(logits[:, kept], scores[:, kept])
    found = trainer.compute_loss(output, batch, class_mask)
    assert list(found) == list(losses)
    for name, wanted in losses.items():
        assert found[name].item() == pytest.approx(wanted.item(), rel=1e-5), name
    learned = [p for p in trainer.model.prompter.parameters() if p.requires_grad]
    # a tensor that the equations do not use has no gradient: the task context under lincls
    grads = torch.autograd.grad(sum(found.values()), learned, allow_unused=True)
    expected_grads = torch.autograd.grad(sum(losses.values()), leaves, allow_unused=True)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            close(mine, theirs)
    return grads


def same_gradients(prompter, loss, wanted, leaves, close):
    """The gradient of every learned tensor against that of its naive leaf, by name."""
    own = dict(prompter.named_parameters())
    found = torch.autograd.grad(loss, list(own.values()))
    expected = torch.autograd.grad(wanted, [leaves[name] for name in own])
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        close(mine, theirs, 3e-5)


def naive_leaf(parameter):
    return parameter.detach().double().requires_grad_()


def wide(parameter):
    """Contexts far from zero: an error in their place then shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
