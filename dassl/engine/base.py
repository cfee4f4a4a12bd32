"""The base of all trainers: registered models with their optimizers, checkpoints, the epochs."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dassl.config import CfgNode
from dassl.utils import (
    UserError,
    distributed,
    load_checkpoint,
    load_pretrained_weights,
    save_checkpoint,
)

from .checkpoints import check_metadata, checkpoint_file, load_optimizer, load_strictly
from .loggers import Logger, open_loggers
from .loss_check import LossCheck

MODES = ("train", "test", "eval")


class TrainerBase:
    """Registered models, and the order of the hooks of a training.

    A model may be registered under several names, and several models with one optimizer:
    :meth:`model_update` and :meth:`update_lr` step each optimizer and scheduler once.
    """

    # Declared by each class. The defaults suit a trainer that was written for Dassl.
    KEY = ""  # its node under cfg.TRAINER, such as "COOP"; "": none
    DEFAULTS: dict[str, Any] = {}  # the keys of that node, with a value or a dassl.config.Key each
    suite: str | None = None  # how to train several tasks: "joint", "each"; None refuses them
    pairs = False  # whether it also trains on images with captions or questions
    refused_labels: dict[str, str] | None = None  # see dassl.engine.label_check
    label_remedy = ""  # what a refusal by refused_labels advises; "": to choose another method
    supports_distributed = False  # whether several processes (torchrun) can share one run
    steps_rule = "one step per batch"

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

    def __init__(self):
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, torch.optim.Optimizer | None] = OrderedDict()
        self._scheds: OrderedDict[str, object | None] = OrderedDict()
        self.best_result = float("-inf")  # on the validation images, so far
        self.loggers: list[Logger] = []
        self._loss_check = LossCheck()
        self.optim_steps_per_batch = self.sched_steps_per_epoch = 1

    def register_model(self, name="model", model=None, optim=None, sched=None) -> None:
        """Register a model to be saved, loaded, switched between modes and stepped."""
        if name in self._models:
            raise ValueError(f"a model named {name!r} is registered already")
        self._models[name], self._optims[name], self._scheds[name] = model, optim, sched

    def models(self) -> list[nn.Module]:
        """The registered models."""
        return list(self._models.values())

    def get_model_names(self, names=None) -> list[str]:
        """All registered names, or ``names`` after checking them."""
        if names is None:
            return list(self._models)
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in self._models:
                raise ValueError(f"no model named {name!r}; registered: {list(self._models)}")
        return names

    def optimizers(self, names=None) -> list[torch.optim.Optimizer]:
        """The distinct optimizers of the named models."""
        return _distinct(self._optims[n] for n in self.get_model_names(names))

    def schedulers(self, names=None) -> list:
        """The distinct schedules of the named models."""
        return _distinct(self._scheds[n] for n in self.get_model_names(names))

    @property
    def task_trainers(self) -> list[TrainerBase]:
        """The trainers of the run: itself, or one per task if tasks are trained separately."""
        return [self]

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name="") -> None:
        """Write every registered model to ``directory/<name>/model.pth.tar-<n>``.

        Args:
            epoch: index of the last epoch, from 0; the number in the file name is ``epoch + 1``.
        """
        for name, model in self._models.items() if distributed.is_main() else ():
            state = {
                "state_dict": model.state_dict(),
                "epoch": epoch + 1,
                "val_result": val_result,
                "facts": self.checkpoint_metadata(),
            }
            save_checkpoint(
                state, str(Path(directory) / name), is_best=is_best, model_name=model_name
            )
        distributed.barrier()  # other processes may read it next

    def load_model(self, directory, epoch=None) -> None:
        """Load every registered model from ``directory``.

        Args:
            epoch: the number of epochs trained; None takes the best on the validation images
                if there is one, else the last that was saved.
        """
        if not directory:
            return
        for name, model in self._models.items():
            path = checkpoint_file(Path(directory) / name, epoch)
            checkpoint = load_checkpoint(str(path))
            print(f"Loading weights to {name} from {path} (epoch {checkpoint.get('epoch')})")
            load_strictly(model, checkpoint.get("state_dict", {}), path)
            check_metadata(checkpoint.get("facts", {}), self.checkpoint_metadata(), path)

    def checkpoint_metadata(self) -> dict:
        """Hook: named values on which a checkpoint and the trainer that loads it must agree."""
        return {}

    def training_state(self) -> dict:
        """The state to continue from, without the epoch and the random generators."""
        return {
            "models": {name: model.state_dict() for name, model in self._models.items()},
            "optims": [optim.state_dict() for optim in self.optimizers()],
            "scheds": [sched.state_dict() for sched in self.schedulers()],
            "best_result": self.best_result,
            "extra": self.extra_state(),
            "facts": self.checkpoint_metadata(),
        }

    def load_training_state(self, state: dict, path: str | Path) -> None:
        """Restore a :meth:`training_state`.

        Args:
            path: its file, for messages.

        Raises:
            UserError: it belongs to another method, backbone or set of names.
        """
        if set(state["models"]) != set(self._models):
            raise UserError(
                f"{path} holds the models {sorted(state['models'])}, but this trainer has "
                f"{sorted(self._models)}; choose another OUTPUT_DIR or RESUME"
            )
        for name, weights in state["models"].items():
            load_strictly(self._models[name], weights, path)
        check_metadata(state.get("facts", {}), self.checkpoint_metadata(), path)
        for optim, saved in zip(self.optimizers(), state["optims"], strict=True):
            load_optimizer(optim, saved, path)
        for sched, saved in zip(self.schedulers(), state["scheds"], strict=True):
            sched.load_state_dict(saved)
        self.best_result = state["best_result"]
        self.load_extra_state(state["extra"])

    def extra_state(self) -> dict:
        """Hook: what a resumed training needs beyond models, optimizers and schedules."""
        return {}

    def load_extra_state(self, state: dict) -> None:
        """Hook: restore what :meth:`extra_state` returned."""

    def load_init_weights(self, path: str) -> None:
        """Initialise every registered model with the weights in a file."""
        for model in self._models.values():
            load_pretrained_weights(model, path)

    def set_model_mode(self, mode="train", names=None) -> None:
        """Switch registered models to train or to test/eval mode."""
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, but got {mode!r}")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def model_zero_grad(self, names=None) -> None:
        """Set all gradients to zero."""
        for optim in self.optimizers(names):
            for tensor in (t for group in optim.param_groups for t in group["params"]):
                tensor.grad = None  # optim.zero_grad also makes a record for profilers

    def model_backward(self, loss) -> None:
        """Compute gradients, after checking that the loss is finite."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names=None) -> None:
        """Step each optimizer of the named models."""
        for optim in self.optimizers(names):
            for _ in range(self.optim_steps_per_batch):
                optim.step()

    def model_backward_and_update(self, loss, names=None) -> None:
        """One complete step: zero the gradients, compute them, update."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def update_lr(self, names=None) -> None:
        """Step each schedule of the named models; called in the last batch of an epoch."""
        for sched in self.schedulers(names):
            for _ in range(self.sched_steps_per_epoch):
                sched.step()

    def get_current_lr(self, names=None) -> float:
        """The learning rate of the first optimizer; 0 if nothing is trained."""
        optims = self.optimizers(names)
        return optims[0].param_groups[0]["lr"] if optims else 0.0

    def detect_anomaly(self, loss) -> None:
        """Stop a training whose loss is not finite; on a GPU, in :meth:`check_losses`."""
        self._loss_check.add(loss)

    def check_losses(self) -> None:
        """Stop a training in which a loss since the last call was not finite."""
        self._loss_check.check_pending()

    # ------------------------------------------------------------------ the order of a training

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


def _distinct(items) -> list:
    return list({id(item): item for item in items if item is not None}.values())
