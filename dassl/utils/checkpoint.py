"""Checkpoints: files of tensors and plain values, read without executing code from them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import UserError
from .files import atomic_path, neighbours
from .hashes import hash_file

BEST = "model-best.pth.tar"


def save_checkpoint(
    state: dict[str, Any],
    save_dir: str | os.PathLike,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> str:
    """Write a checkpoint and return its path; a kill at any moment leaves the earlier files.

    The text file ``checkpoint`` in the same folder then holds its name.

    Args:
        state: ``state_dict``, ``epoch`` and plain values.
        save_dir: created if missing.
        is_best: also keep it as ``model-best.pth.tar``.
        remove_module_from_keys: drop the ``module.`` that nn.DataParallel puts before names.
        model_name: file name; "" for ``model.pth.tar-<epoch>``.

    Raises:
        TypeError: something in ``state`` is an object that ``weights_only=True`` does not read.
    """
    state = {k: v.item() if isinstance(v, np.generic) else v for k, v in state.items()}
    if remove_module_from_keys:
        state["state_dict"] = _without_module(state["state_dict"])
    path = Path(save_dir) / (model_name or f"model.pth.tar-{state['epoch']}")
    with atomic_path(path) as temporary:
        write_tensors(state, temporary)
        _refuse_objects(temporary)
    with atomic_path(path.parent / "checkpoint") as temporary:
        temporary.write_text(f"{path.name}\n", encoding="utf-8")
    if is_best and path.name != BEST:
        with atomic_path(path.parent / BEST) as temporary:
            shutil.copyfile(path, temporary)
    print(f"Checkpoint saved to {path}")
    return str(path)


def write_tensors(state: dict[str, Any], path: Path) -> None:
    """torch.save, but with an ordinary OSError when the disk is full."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getbuffer())


def _refuse_objects(path: Path) -> None:
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TypeError(
            "a checkpoint holds tensors, numbers, strings, lists and dicts only, so that it can "
            f"be read without running code from it: {_first_line(error)}"
        ) from None


def _without_module(state_dict: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("module."): value for key, value in state_dict.items()}


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        UserError: the file is missing, broken, holds objects that only running code from it
            could restore, or no dict.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses at what a broken file is
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_sums(path)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}{neighbours(Path(path))}") from None
    except (pickle.UnpicklingError, LookupError):  # torch advises to load the file unsafely
        raise UserError(
            f"cannot read the checkpoint {path}: it is not a file of torch.save, or it holds more "
            "than tensors and plain values; save its state_dict alone"
        ) from None
    except Exception as error:  # a broken file can make torch raise nearly anything
        raise UserError(f"cannot read the checkpoint {path}: {_first_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"the checkpoint {path} holds a {type(content).__name__}, not a dict")
    return content


def _check_sums(path: str | os.PathLike) -> None:
    """Compare the content of a zip file with its checksums, which torch.load does not read.

    They are all 0 in a file that was written without (``torch.serialization.set_crc32_options``).
    """
    if not zipfile.is_zipfile(path):
        return  # written by torch before 1.6
    with zipfile.ZipFile(path) as archive:
        if not any(record.CRC for record in archive.infolist()):
            return
        if (name := archive.testzip()) is not None:
            raise ValueError(f"{name} in it has changed since it was written")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def load_pretrained_weights(model: nn.Module, weight_path: str | os.PathLike) -> None:
    """Copy the tensors of a file into a model where name and shape agree.

    The tensors that were left out are printed; if none fits, UserError is raised.
    """
    checkpoint = load_checkpoint(weight_path)
    loaded = _without_module(checkpoint.get("state_dict", checkpoint))
    current = model.state_dict()
    fitting = {k: v for k, v in loaded.items() if k in current and current[k].shape == v.shape}
    if not fitting:
        raise UserError(
            f"nothing in {weight_path} fits the model: it holds {_shapes(loaded)}; "
            f"the model has {_shapes(current)}"
        )
    model.load_state_dict({**current, **fitting})
    print(f"Loaded {len(fitting)} of {len(current)} tensors from {weight_path}")
    left_out = [key for key in loaded if key not in fitting]
    if left_out:
        print(f"Left out for their name or shape: {', '.join(left_out)}")


def _shapes(state: dict[str, Any]) -> str:
    shown = [f"{k} {tuple(getattr(v, 'shape', ()))}" for k, v in list(state.items())[:4]]
    return ", ".join(shown) + (", ..." if len(state) > 4 else "") if shown else "nothing"


def hash_checkpoints(folder: Path, epoch: int | None = None) -> str:
    """16 hex digits of the content of the checkpoints below a folder.

    Args:
        epoch: the epoch whose checkpoints count; None: all.
    """
    digest = hashlib.sha256()
    found = folder.rglob("*.pth.tar*" if epoch is None else f"*.pth.tar-{epoch}")
    for path in sorted(path for path in found if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()[:16]
