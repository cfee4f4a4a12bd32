"""The bias of multi-label tasks, from the training images (``OPTIM.LOGIT_BIAS auto``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from dassl.data.label_kinds import AUTO, MultiLabel

from .resume import random_state, set_random_state

if TYPE_CHECKING:
    from .base import TrainerBase
    from .simple_trainer import SimpleTrainer

MOST_IMAGES = 1000  # of a task; more hardly change a mean


def set_label_biases(trainer: SimpleTrainer, use_labels: bool = True) -> None:
    """Set the bias of each multi-label task, from the logits of the model as it is now.

    Nothing is set if OPTIM.LOGIT_BIAS is a number, if this has been done before, or for a task
    without training images. The random generators stay as they are.

    Args:
        use_labels: False for tasks that the model is not to learn from. A trainer that learns
            nothing uses no labels in any case.
    """
    if trainer.cfg.OPTIM.LOGIT_BIAS != AUTO or trainer.biases_set:
        return
    use_labels = use_labels and bool(trainer.optimizers())
    state = random_state()
    for t, kind in _multi_label(trainer):
        if found := _logits_and_labels(trainer, t):
            logits, labels = found
            kind.bias = kind.starting_bias(logits, labels if use_labels else None)
            print(f"Bias of the logits of {trainer.dm.space.tasks[t].name!r}: {kind.bias:.2f}")
    set_random_state(state)
    trainer.biases_set = True


def set_all_label_biases(trainer: TrainerBase, use_labels: bool = True) -> None:
    """:func:`set_label_biases` for every trainer of a run."""
    for part in trainer.task_trainers:
        set_label_biases(cast("SimpleTrainer", part), use_labels)


def label_biases(trainer: SimpleTrainer) -> dict[str, float]:
    """The biases to restore when a training is resumed, by task name; none if they are given."""
    if trainer.cfg.OPTIM.LOGIT_BIAS != AUTO:
        return {}
    return {trainer.dm.space.tasks[t].name: kind.bias for t, kind in _multi_label(trainer)}


def restore_label_biases(trainer: SimpleTrainer, biases: dict[str, float]) -> None:
    """Set :func:`label_biases` again; a task that is not among them keeps its bias."""
    if trainer.cfg.OPTIM.LOGIT_BIAS == AUTO:
        for t, kind in _multi_label(trainer):
            kind.bias = biases.get(trainer.dm.space.tasks[t].name, kind.bias)


def _multi_label(trainer: SimpleTrainer) -> list[tuple[int, MultiLabel]]:
    kinds = enumerate(trainer.dm.space.kinds)
    return [(t, kind) for t, kind in kinds if isinstance(kind, MultiLabel)]


@torch.no_grad()
def _logits_and_labels(trainer: SimpleTrainer, t: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Logits (n, C) and labels (n,) of training images of task ``t``; None if it has none."""
    items = [item for item in trainer.dataset.train_x or () if item.task == t]
    if not items:
        return None
    trainer.set_model_mode("eval")
    infer = trainer.build_inference("test")
    logits, labels = [], []
    for batch in trainer.training_images(items[:: -(-len(items) // MOST_IMAGES)]):
        images, label = trainer.parse_batch_test(batch)
        logits.append(infer(images)[:, trainer.dm.space.columns(t)].float().cpu())
        labels.append(label.cpu())
    return torch.cat(logits), torch.cat(labels)
