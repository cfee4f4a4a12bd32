"""Starts a training from what finished runs learned on other tasks (``MODEL.INIT_FROM``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dassl.utils import UserError

from .checkpoints import check_metadata, checkpoint_file, read_checkpoint

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


def init_from_runs(trainer: SimpleTrainer, folders: Sequence[str]) -> dict[str, list[str]]:
    """Set a trainer's tensors to the mean of those that runs with the same method learned.

    Tensors of single classes or tasks keep their own start, unless the run has the same names.
    Neither the optimizer nor buffers, such as tuned values, are carried over.

    Args:
        folders: run directories; their weights count equally.

    Returns:
        The names of the tensors that were carried over ("carried") and of the others ("new").

    Raises:
        UserError: a run has another backbone or other shapes, or nothing can be carried over.
    """
    if not trainer.optimizers():
        raise UserError(
            f"--init-from sets where SGD starts, but {trainer.method_name()} does not use it: "
            "choose a method that learns prompts by SGD"
        )
    found: dict[str, list[str]] = {"carried": [], "new": []}
    for name, model in zip(trainer.get_model_names(), trainer.models(), strict=True):
        paths = [checkpoint_file(Path(folder) / name, None) for folder in folders]
        checkpoints = [read_checkpoint(path) for path in paths]
        bound = set[str]()
        for path, checkpoint in zip(paths, checkpoints, strict=True):
            bound |= _bound_elsewhere(trainer, checkpoint.metadata, path)
        states = [checkpoint.weights for checkpoint in checkpoints]
        for key, tensor in _mean_tensors(model, states, paths, bound).items():
            model.get_parameter(key).data.copy_(tensor)
            found["carried"].append(key)
        found["new"] += [key for key, _ in model.named_parameters() if key in bound]
    if not found["carried"]:
        raise UserError(
            f"--init-from carries nothing over: all that {trainer.method_name()} learns belongs to "
            "single classes or tasks, and the run has others"
        )
    print(f"Starting from {', '.join(map(str, folders))}: {', '.join(found['carried'])}")
    if found["new"]:
        print(f"Not carried over, for other classes or tasks: {', '.join(found['new'])}")
    return found


def _bound_elsewhere(trainer: SimpleTrainer, saved: dict, path: Path) -> set[str]:
    """Tensors that belong to classes or tasks, if those of the checkpoint are not the trainer's."""
    expected = trainer.checkpoint_metadata()
    names = {key: value for key, value in expected.items() if isinstance(value, list)}
    check_metadata(saved, {k: v for k, v in expected.items() if k not in names}, path)
    same = all(saved.get(k) == v for k, v in names.items())
    return set() if same else set(trainer.bound_tensors())


def _mean_tensors(
    model: nn.Module, states: Sequence[dict[str, Tensor]], paths: Sequence[Path], bound: set[str]
) -> dict[str, Tensor]:
    """The mean of each parameter of the model over checkpoints, without those in ``bound``."""
    means = {}
    for key, parameter in model.named_parameters():
        if key in bound:
            continue
        for state, path in zip(states, paths, strict=True):
            shape = tuple(state[key].shape) if key in state else None
            if shape != tuple(parameter.shape):
                held = "is missing" if shape is None else f"has shape {shape}"
                raise UserError(
                    f"--init-from cannot use {path}: {key} {held}, here {tuple(parameter.shape)}; "
                    "give a run with the same options of the method"
                )
        means[key] = torch.stack([state[key].to(parameter) for state in states]).mean(dim=0)
    return means
