"""The base of methods that train for a number of steps per shot, whatever the dataset's size."""

from __future__ import annotations

import math

import torch

from dassl.config import CfgNode, Key
from dassl.engine import Step

from ._base import PromptTrainer

# Keys of such a method's node.
STEP_KEYS = dict(
    # training steps for each image of a class; 0: OPTIM.MAX_EPOCH epochs
    ITERATIONS=Key(500, least=0),
    MIN_LR=Key(1e-6, least=0),  # at the end of the cosine, which moves with each step
)


class StepTrainer(PromptTrainer):
    """A method whose training ends after ITERATIONS x shots steps, on a cosine of the steps.

    The last epoch may be longer than that: its further steps have a learning rate of 0, with which
    AdamW changes nothing.
    """

    @property
    def options(self) -> CfgNode:
        """The method's own node."""
        return self.cfg.TRAINER[self.KEY]

    def build_data_loader(self) -> None:
        """The loaders; the number of epochs follows from the number of steps."""
        super().build_data_loader()
        self.steps_rule = "one step per batch, cosine per step"
        if self.options.ITERATIONS and self.train_loader_x is not None:
            self.max_epoch = math.ceil(self.total_steps / len(self.train_loader_x))
            self.steps_rule += f", {self.options.ITERATIONS} steps per shot"

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        if not self.options.ITERATIONS:
            return self.max_epoch * len(self.train_loader_x)
        shots = self.cfg.DATASET.NUM_SHOTS
        if shots < 1:  # all images: their mean number per class
            shots = math.ceil(len(self.dataset.train_x) / self.dm.space.num_classes)
        return self.options.ITERATIONS * shots

    def learning_rate(self, number: int) -> float:
        """The rate of step ``number``, counted from 0."""
        return cosine(number, self.total_steps, self.cfg.OPTIM.LR, self.options.MIN_LR)

    def train_step(self, batch: dict, step: Step) -> dict[str, torch.Tensor]:
        """One optimizer step at the step's own rate."""
        for optim in self.optimizers():
            for group in optim.param_groups:
                group["lr"] = self.learning_rate(step.number)
        return super().train_step(batch, step)

    def update_lr(self, names=None) -> None:
        """Do nothing: the rate is a function of the step."""


def cosine(number: int, total: int, start: float, end: float) -> float:
    """A value that falls from ``start`` to ``end`` over ``total`` steps; 0 from there on."""
    if number >= total:
        return 0.0
    return end + (start - end) * (1 + math.cos(math.pi * number / total)) / 2
