"""The file ``resume.pt``: the state after an epoch, from which a stopped training continues."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import torch

from dassl.utils import (
    DamagedFile,
    UserError,
    atomic_path,
    distributed,
    load_checkpoint,
    naming_damaged,
)
from dassl.utils.checkpoint import write_tensors

from .base import TrainerBase

FILE, PREVIOUS = "resume.pt", "resume.previous.pt"
KEYS = ("epoch", "models", "optims", "scheds", "best_result", "random", "extra")


def save_resume(trainer: TrainerBase, directory: str | Path, epochs_done: int) -> None:
    """Write ``resume.pt``; the one before it becomes ``resume.previous.pt``."""
    if not distributed.is_main():
        return
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    state = {"epoch": epochs_done, "random": random_state(), **trainer.training_state()}
    with atomic_path(folder / FILE) as path:
        write_tensors(state, path)
        if (folder / FILE).exists():
            os.replace(folder / FILE, folder / PREVIOUS)


def load_resume(trainer: TrainerBase, directory: str | Path, needed: bool = False) -> int:
    """Restore the newest state in ``directory`` that is not damaged; the epochs done, 0 if none.

    Args:
        needed: refuse to start from nothing if all stored states are damaged.

    Raises:
        UserError: a state belongs to another training; or all are damaged, and either one is
            needed or a part of one was restored.
    """
    damage = ""
    for path in (Path(directory) / name for name in (FILE, PREVIOUS)):
        if not path.exists():
            continue
        try:
            state = _read(path)
            needed = True  # if it fails from here on, the trainer is neither new nor restored
            with naming_damaged(path):
                trainer.load_training_state(state, path)
                set_random_state(state["random"])
            return state["epoch"]
        except DamagedFile as error:
            print(f"{error}; looking for the state before it")
            damage = str(error)
    if damage and needed:
        raise UserError(
            f"{damage}, and there is no other state in {directory}: delete it to begin the "
            "training again, or give another folder"
        )
    return 0


def _read(path: Path) -> dict:
    try:
        state = load_checkpoint(path)
    except UserError as error:
        raise DamagedFile(str(error)) from None
    if missing := [key for key in KEYS if key not in state]:
        raise DamagedFile(f"{path} holds no {missing[0]}")
    if type(state["epoch"]) is not int or state["epoch"] < 0:
        raise DamagedFile(f"{path} holds {state['epoch']!r} as the number of epochs")
    return state


def random_state() -> dict:
    """The states of all global generators, as tensors, numbers and lists only."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, torch.tensor(numbers), gauss],  # a list of 625 is slow to save
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict) -> None:
    """Put all global generators back to a state of :func:`random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(torch.as_tensor(numbers).tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
