"""Weight files: reading them without running code from them, and copying them into a model."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import torch
from open_clip.convert import convert_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ._errors import CLIPError
from ._fetch import quiet

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
# Sizes in OpenAI's archives, beside the weights; they identify a state dict as OpenAI's.
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")

State = dict[str, torch.Tensor]


def read_weights(path: Path) -> State:
    """Names and tensors of a weight file: safetensors, a torch.save file, or a TorchScript archive.

    Only tensors are unpickled. An archive is opened with ``torch.jit.load``, so the caller must
    trust its source.

    Raises:
        CLIPError: unreadable, or not a mapping of names to tensors.
    """
    try:
        with quiet():
            state = _read(path)
    except OSError as error:
        raise CLIPError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # the readers raise nearly anything on a damaged file
        raise CLIPError(f"{path} cannot be read as weights: {_reason(error)}") from None
    return _check_state(path, state)


def _reason(error: Exception) -> str:
    """The first line of an error, without torch's advice to load the file unsafely."""
    line = str(error).strip().split("\n")[0]
    telling = isinstance(error, (RuntimeError, SafetensorError)) and "weights_only" not in line
    if line and telling:
        return line[:200]
    return (
        "it is damaged, not a file of safetensors, torch.save or TorchScript, or it holds more "
        "than tensors; save the model's state_dict alone"
    )


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_archive(path):
        return torch.jit.load(path, map_location="cpu").state_dict()
    return torch.load(path, map_location="cpu", weights_only=True)


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return False


def _check_state(path: Path, state: object) -> State:
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        raise CLIPError(f"{path} holds no weights: a {type(state).__name__}, not names and tensors")
    wrong = [k for k, v in state.items() if not isinstance(k, str) or not torch.is_tensor(v)]
    if wrong:
        raise CLIPError(f"{path} holds no weights: {str(wrong[0])[:100]!r} is not a tensor")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def is_openai(state: State) -> bool:
    """Whether the state dict is OpenAI's, whose shapes determine its architecture."""
    return all(key in state for key in OPENAI_SIZES)


def to_custom_text(state: State) -> State:
    """The weights under the names of open_clip's models with a text tower of its own."""
    text = re.compile(
        "(text_projection|positional_embedding|token_embedding|transformer|ln_final|cls_emb)"
    )
    return {f"text.{k}" if text.match(k) else k: tensor for k, tensor in state.items()}


def fill(model: nn.Module, state: State, what: str) -> None:
    """Copy the weights into the model; ``what`` names both in the message.

    Raises:
        CLIPError: they belong to another architecture.
    """
    state = {name: tensor for name, tensor in state.items() if name not in OPENAI_SIZES}
    try:
        state = convert_state_dict(model, state)
    except Exception as error:  # it reads keys that a file of another model lacks
        raise CLIPError(
            f"{what}: the weights are of another architecture: {_reason(error)}"
        ) from None
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = to_custom_text(state)
    wanted = model.state_dict()
    state.pop("text.transformer.embeddings.position_ids", None)  # of older transformers
    if "logit_bias" in wanted and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(wanted["logit_bias"])  # as open_clip does
    for key in ("logit_scale", "logit_bias"):  # a number, or a vector of one
        if key in state and key in wanted and state[key].numel() == wanted[key].numel():
            state[key] = state[key].reshape(wanted[key].shape)
    problems = _differences(state, wanted)
    if problems:
        raise CLIPError(f"{what}: the weights are of another architecture: {'; '.join(problems)}")
    try:
        model.load_state_dict(state)
    except Exception as error:  # sparse, quantized, ... tensors
        raise CLIPError(f"{what}: the weights cannot be copied: {_reason(error)}") from None


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
