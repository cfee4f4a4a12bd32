"""The bias of multi-label tasks, from the training images (``OPTIM.LOGIT_BIAS auto``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dassl.data.label_kinds import AUTO, MultiLabel

from .plain_images import training_images

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer

MOST_IMAGES = 1000  # of a task; more hardly change a mean


@torch.no_grad()
def set_label_biases(trainer: SimpleTrainer) -> None:
    """Set the bias of each multi-label task, from the logits of the model before training.

    Nothing is set if OPTIM.LOGIT_BIAS is a number, or for a task without training images, such as
    one of a run that is loaded again with the bias in its ``tasks.json``.
    """
    if trainer.cfg.OPTIM.LOGIT_BIAS != AUTO:
        return
    space, items = trainer.dm.space, trainer.dataset.train_x or ()
    for t in space.set_tasks:
        own = [item for item in items if item.task == t]
        kind = space.kinds[t]
        if not own or not isinstance(kind, MultiLabel):
            continue
        trainer.set_model_mode("eval")
        infer = trainer.build_inference("test")
        logits, labels = [], []
        for batch in training_images(trainer, own[:: -(-len(own) // MOST_IMAGES)]):
            images, label = trainer.parse_batch_test(batch)
            logits.append(infer(images)[:, space.columns(t)].float().cpu())
            labels.append(label.cpu())
        kind.set_bias(kind.starting_bias(torch.cat(logits), torch.cat(labels)))
        print(f"Bias of the logits of {space.tasks[t].name!r}: {kind.bias:.2f}")
