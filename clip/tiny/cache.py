"""The cache file of the pre-trained tiny CLIP, written once by one process."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dassl.utils.files import atomic_path, cache_folder

from .. import _archs
from .._errors import CLIPError
from .pretrain import pretrain
from .recipe import Recipe

State = dict[str, torch.Tensor]


def tiny_weights(recipe: Recipe | None = None) -> State:
    """Weights of the tiny CLIP, from the cache or else pre-trained and stored there.

    A second process waits for the first and reads its file; a damaged file is replaced.

    Raises:
        CLIPError: the cache folder cannot be written.
    """
    recipe = recipe or Recipe()
    path = cache_path(recipe)
    state = _read(path)
    if state is not None:
        return state
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            return _read(path) or _make(recipe, path)
    except OSError as error:
        raise CLIPError(
            f"cannot write the tiny CLIP to {path.parent} ({error.strerror or error}); "
            "set XDG_CACHE_HOME to a writable folder"
        ) from None


def tiny_file(recipe: Recipe | None = None) -> Path:
    """The same weights as a ``torch.save`` file in the form of OpenAI's state dicts."""
    recipe = recipe or Recipe()
    state = tiny_weights(recipe)
    path = cache_path(recipe).with_suffix(".pt")
    sizes = {
        "input_resolution": _archs.TINY["vision_cfg"]["image_size"],
        "context_length": _archs.TINY["text_cfg"]["context_length"],
        "vocab_size": _archs.TINY["text_cfg"]["vocab_size"],
    }
    with atomic_path(path) as temporary:
        torch.save({**state, **{k: torch.tensor(v) for k, v in sizes.items()}}, temporary)
    return path


def cache_path(recipe: Recipe) -> Path:
    """The cache file of a recipe's weights."""
    return cache_folder("tiny") / f"{recipe.fingerprint()}.safetensors"


def _make(recipe: Recipe, path: Path) -> State:
    print(
        f"pre-training the {recipe.arch} CLIP on rendered digits, under a minute, once",
        file=sys.stderr,
        flush=True,
    )
    state = pretrain(recipe)
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"sha256": _digest(state)})
    return state


def _read(path: Path) -> State | None:
    """The weights in a file; None if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            wanted = (file.metadata() or {}).get("sha256")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    return state if _digest(state) == wanted else None


def _digest(state: State) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; print a line if another process has it."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another process is pre-training the tiny CLIP; waiting", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
