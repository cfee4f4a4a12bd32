"""What ``--dry-run`` shows of a trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from dassl.utils import count_num_param

from .balance import balance_of
from .checks import check_validation
from .task_weights import check_task_weights

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


def describe_trainer(trainer: SimpleTrainer) -> list[str]:
    """Lines on a trainer: learned tensors, their shapes, steps per epoch, balance of the tasks."""
    check_validation(trainer)
    lines = []
    for name, model in zip(trainer.get_model_names(), trainer.models(), strict=True):
        lines.append(f"{name}: {count_learned(model):,} trainable parameters")
        lines += [
            f"  {key} {tuple(p.shape)}" for key, p in model.named_parameters() if p.requires_grad
        ]
    steps = 0
    if trainer.optimizers() and trainer.train_loader_x:
        sampler = trainer.cfg.DATALOADER.TRAIN_X.SAMPLER
        check_task_weights(trainer.cfg.OPTIM, trainer.dm.space, sampler)
        steps = len(trainer.train_loader_x)
        if rules := balance_of(trainer.cfg):
            lines.append(f"balance of tasks: {', '.join(f'{k} {v}' for k, v in rules.items())}")
    epochs = trainer.max_epoch if steps else 0
    return [*lines, f"{steps} steps per epoch, {epochs} epochs, {trainer.steps_rule}"]


def count_learned(model: nn.Module) -> int:
    """The number of learned values of a model."""
    return count_num_param(params=[p for p in model.parameters() if p.requires_grad])
