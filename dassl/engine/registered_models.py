"""The registered models of a trainer: their optimizers, steps, checkpoints and state."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from dassl.utils import (
    UserError,
    distributed,
    load_pretrained_weights,
    save_checkpoint,
)

from .checkpoints import (
    check_metadata,
    checkpoint_file,
    load_optimizer,
    load_strictly,
    read_checkpoint,
)
from .loss_check import LossCheck

MODES = ("train", "test", "eval")


class RegisteredModels:
    """Models by name, each with an optimizer and a schedule or with neither.

    A model may be registered under several names, and several models with one optimizer:
    :meth:`model_update` and :meth:`update_lr` step each optimizer and scheduler once.
    """

    def __init__(self):
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, torch.optim.Optimizer | None] = OrderedDict()
        self._scheds: OrderedDict[str, object | None] = OrderedDict()
        self.best_result = float("-inf")  # on the validation images, so far
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
            checkpoint = read_checkpoint(path)
            print(f"Loading weights to {name} from {path} (epoch {checkpoint.epoch})")
            load_strictly(model, checkpoint.weights, path)
            check_metadata(checkpoint.metadata, self.checkpoint_metadata(), path)

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


def _distinct(items) -> list:
    return list({id(item): item for item in items if item is not None}.values())
