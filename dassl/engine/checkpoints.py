"""Checkpoint files: which one to read, and whether it fits the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from dassl.utils import UserError, load_checkpoint, naming_damaged
from dassl.utils.checkpoint import BEST
from dassl.utils.words import shorten


class Checkpoint(NamedTuple):
    """The content of a checkpoint; ``metadata`` is empty in those of other code."""

    weights: dict[str, Tensor]
    metadata: dict[str, Any]
    epoch: Any


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The content of a checkpoint of one model.

    Raises:
        UserError: the file is missing or broken, or holds other things than named tensors.
    """
    content = load_checkpoint(path)
    weights, metadata = content.get("state_dict", {}), content.get("facts", {})
    _check_tensors(weights, path)
    if not isinstance(metadata, dict):
        raise UserError(f"{path} is damaged: its metadata, facts, is {shorten(str(metadata))}")
    return Checkpoint(weights, metadata, content.get("epoch"))


def _check_tensors(state: object, path: str | Path) -> None:
    """Refuse what is no state dict."""
    named = state.items() if isinstance(state, dict) else [("state_dict", state)]
    for name, value in named:
        if not isinstance(value, Tensor):
            raise UserError(
                f"{path} is damaged: {name} holds {shorten(str(value))}, but must hold tensors"
            )


def checkpoint_file(folder: Path, epoch: int | None) -> Path:
    """The checkpoint of one model in its folder.

    Args:
        epoch: the number of epochs trained; None takes the best on the validation images if there
            is one, else the last that was saved.

    Raises:
        UserError: the file that names the last one cannot be read.
    """
    if epoch is not None:
        return folder / f"model.pth.tar-{epoch}"
    if not (folder / BEST).exists() and (folder / "checkpoint").exists():
        with naming_damaged(folder / "checkpoint"):
            return folder / (folder / "checkpoint").read_text(encoding="utf-8").strip()
    return folder / BEST


def load_strictly(model: nn.Module, state: dict, path: str | Path) -> None:
    """Load a state dict whose names and shapes must be those of the model.

    Args:
        path: the source, for the message.

    Raises:
        UserError: a tensor is missing, unknown or of another shape.
    """
    _check_tensors(state, path)
    expected = model.state_dict()
    wrong = [f"{k} is missing" for k in expected if k not in state]
    wrong += [f"{k} is unknown" for k in state if k not in expected]
    wrong += [
        f"{k} has shape {tuple(state[k].shape)}, here {tuple(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    wrong += [
        f"{k} holds {state[k].dtype}, here {expected[k].dtype}"
        for k in expected
        if k in state and _kind(state[k]) != _kind(expected[k])
    ]
    if wrong:
        raise UserError(
            f"{path} does not fit this trainer and its configuration: {'; '.join(wrong[:4])}. "
            "Was it trained with another method, backbone, context or set of classes?"
        )
    model.load_state_dict(state)


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    """Whether the numbers are real, and whether they are complex; neither: they are whole."""
    return tensor.is_floating_point(), tensor.is_complex()


def load_optimizer(optim: Optimizer, state: dict, path: str | Path) -> None:
    """Load the state of an optimizer, whose groups of parameters must be those of the trainer.

    Raises:
        UserError: it has others, as of another OPTIM.TASK_WEIGHTS.
    """
    try:
        optim.load_state_dict(state)
    except ValueError as error:
        raise UserError(
            f"{path} holds the optimizer of another training ({error}): is OPTIM.TASK_WEIGHTS the "
            "same? Choose another OUTPUT_DIR or RESUME"
        ) from None


def check_metadata(saved: dict, expected: dict, path: str | Path) -> None:
    """Refuse weights that fit by their shapes only; entries missing in the file are not checked.

    Raises:
        UserError: an entry of the checkpoint's metadata differs from the trainer's.
    """
    for name, value in expected.items():
        if saved.get(name, value) != value:
            raise UserError(
                f"{path} was trained with another {name}: {shorten(str(saved[name]), 100)}, here "
                f"{shorten(str(value), 100)}{_without_values(saved[name], value)}"
            )


def _without_values(saved: object, expected: object) -> str:
    """A sentence on the names of classes or tasks that a checkpoint has no learned values for."""
    if not isinstance(saved, list) or not isinstance(expected, list):
        return ""
    new = [repr(name) for name in expected if name not in saved]
    if not new or not saved:
        return ""
    more = f" and {len(new) - 4} more" if len(new) > 4 else ""
    return (
        f". It has no learned values for {', '.join(new[:4])}{more}: take the classes or tasks "
        "that it was trained on, or a method whose learned values fit any name, such as CoOp or "
        "SoftCPT-NATA"
    )
