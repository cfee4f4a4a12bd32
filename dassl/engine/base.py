"""The base of all trainers: the order of a training, and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.utils import distributed

from .loggers import Logger, open_loggers
from .registered_models import RegisteredModels
from .step import Observer


class TrainerBase(RegisteredModels):
    """Declarations of a trainer, and the order of the hooks of a training."""

    # Declared by each class. The defaults suit a trainer that was written for Dassl.
    KEY = ""  # its node under cfg.TRAINER, such as "COOP"; "": none
    DEFAULTS: dict[str, Any] = {}  # the keys of that node, with a value or a dassl.config.Key each
    suite: str | None = None  # how to train several tasks: "joint", "each"; None refuses them
    pairs = False  # whether it also trains on images with captions or questions
    refused_labels: dict[str, str] | None = None  # reasons by kind; see dassl.engine.checks
    label_remedy = ""  # what a refusal by refused_labels advises; "": to choose another method
    supports_distributed = False  # whether several processes (torchrun) can share one run
    weighs_tasks = False  # whether the loss of a batch is computed by self.task_weights
    # options that may differ from those of a run to start from, beside PREC (MODEL.INIT_FROM)
    free_options: tuple[str, ...] = ()
    steps_rule = "one step per batch"

    observers: Sequence[Observer] = ()  # called before every training step
    selecting_model = False  # True from before_train to deploy: the test images are not available

    @classmethod
    def config_keys(cls, cfg: CfgNode) -> list[str]:
        """The nodes under ``cfg.TRAINER`` that this trainer reads."""
        return [cls.KEY] if cls.KEY else []

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Add the trainer's own node to the configuration."""
        if cls.KEY:
            cfg.TRAINER[cls.KEY] = CfgNode(dict(cls.DEFAULTS))

    @classmethod
    def free_keys(cls, cfg: CfgNode) -> tuple[str, ...]:
        """``free_options``, and those of a method that this trainer is added to."""
        return cls.free_options

    def __init__(self):
        super().__init__()
        self.loggers: list[Logger] = []

    @property
    def task_trainers(self) -> list[TrainerBase]:
        """The trainers of the run: itself, or one per task if tasks are trained separately."""
        return [self]

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Run all epochs from ``start_epoch``, with the hooks around them."""
        self.start_epoch, self.max_epoch = start_epoch, max_epoch
        self.selecting_model = True
        try:
            self.before_train()
            for epoch in range(self.start_epoch, self.max_epoch):
                self.epoch = epoch
                self.before_epoch()
                self.run_epoch()
                self.after_epoch()
            self.deploy()
        finally:
            self.selecting_model = False
        self.after_train()

    def before_train(self):
        """Hook: before the first epoch."""

    def deploy(self):
        """Hook: load the model to test; called just before :meth:`after_train`."""

    def after_train(self):
        """Hook: after the last epoch."""

    def before_epoch(self):
        """Hook: before each epoch."""

    def after_epoch(self):
        """Hook: after each epoch."""

    def run_epoch(self):
        """Train for one epoch."""
        raise NotImplementedError(f"{type(self).__name__} must override run_epoch")

    def test(self, split=None):
        """Evaluate."""
        raise NotImplementedError(f"{type(self).__name__} must override test")

    def forward_backward(self, batch) -> dict[str, float | torch.Tensor]:
        """One step on a batch; returns named numbers for the log, "loss" among them.

        Tensors are allowed, and better on a GPU: they are read only once per log line.
        """
        raise NotImplementedError(f"{type(self).__name__} must override forward_backward")

    def model_info(self) -> dict:
        """The method's options, hash of the frozen weights and precision, for the run's record."""
        return {"options": {}, "weights": "", "precision": "fp32"}

    def skipped_steps(self) -> int | None:
        """Optimizer steps that were skipped as a gradient overflowed; None without amp."""
        return None

    def method_name(self) -> str:
        """The name of this method with its options in tables."""
        return type(self).__name__

    def show_prompts(self) -> list[str]:
        """Lines for ``--show-prompts``."""
        return [f"{type(self).__name__} has no prompts to show"]

    def init_writer(self, log_dir=None) -> None:
        """Open the loggers of the curves; ``log_dir``, Dassl's argument, is not used."""
        if not self.loggers and distributed.is_main():
            self.loggers = open_loggers(self.cfg, Path(self.cfg.OUTPUT_DIR))

    def close_writer(self) -> None:
        """Close the loggers of the curves."""
        for logger in self.loggers:
            logger.close()
        self.loggers = []

    def write_scalar(self, tag, scalar_value, global_step=None) -> None:
        """Add a point to a curve, in the loggers that are open."""
        for logger in self.loggers:
            logger.add(tag, scalar_value, global_step)
