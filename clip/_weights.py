"""Reading weight files without running anything in them, and putting them into a model."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ._errors import CLIPError
from ._fetch import quiet

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
# Sizes that OpenAI's archives carry beside the weights; a state dict with them is OpenAI's.
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")

State = dict[str, torch.Tensor]


def read_weights(path: Path) -> State:
    """Names and tensors of a weight file: safetensors, a torch.save file, or a TorchScript archive.

    Only tensors are unpickled. An archive is opened with ``torch.jit.load``, so the caller
    answers for where it comes from.

    Raises:
        CLIPError: unreadable, or not a mapping of names to tensors.
    """
    try:
        with quiet():
            state = _read(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CLIPError(f"{path} cannot be read as weights: {reason[:200]}") from None
    except OSError as error:
        raise CLIPError(f"{path} cannot be read: {error.strerror or error}") from None
    return _check_state(path, state)


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_archive(path):
        return torch.jit.load(path, map_location="cpu").state_dict()
    return torch.load(path, map_location="cpu", weights_only=True)


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _check_state(path: Path, state: object) -> State:
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        raise CLIPError(f"{path} holds no weights: a {type(state).__name__}, not names and tensors")
    wrong = [k for k, v in state.items() if not isinstance(k, str) or not torch.is_tensor(v)]
    if wrong:
        raise CLIPError(f"{path} holds no weights: {wrong[0]!r} is not a tensor")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def is_openai(state: State) -> bool:
    """Whether the state dict is OpenAI's, whose architecture its shapes tell."""
    return all(key in state for key in OPENAI_SIZES)


def fill(model: nn.Module, state: State, what: str) -> None:
    """Copy the weights into the model; ``what`` names both in the message.

    Raises:
        CLIPError: they belong to another architecture.
    """
    state = {name: tensor for name, tensor in state.items() if name not in OPENAI_SIZES}
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    wanted = model.state_dict()
    if "logit_scale" in state and state["logit_scale"].numel() == wanted["logit_scale"].numel():
        state["logit_scale"] = state["logit_scale"].reshape(wanted["logit_scale"].shape)
    problems = _differences(state, wanted)
    if problems:
        raise CLIPError(f"{what}: the weights are of another architecture: {'; '.join(problems)}")
    model.load_state_dict(state)


def _differences(state: State, wanted: State) -> list[str]:
    shapes = [
        f"{k} is {tuple(state[k].shape)} in the file and {tuple(wanted[k].shape)} in the model"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    missing = [k for k in wanted if k not in state]
    extra = [k for k in state if k not in wanted]
    found = []
    for title, names in (("missing", missing), ("not in the model", extra), ("", shapes)):
        if names:
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            found.append(f"{title}{': ' if title else ''}{', '.join(names[:2])}{more}")
    return found
