"""Random seeds, versions, parameter counts, nested keys."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import random
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .words import size_in_words

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN_PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "Pillow", "yacs")


def choose_device(use_cuda: bool) -> str:
    """ "cuda" if torch finds a GPU and the configuration (``USE_CUDA``) allows it, else "cpu"."""
    import torch

    return "cuda" if use_cuda and torch.cuda.is_available() else "cpu"


def set_random_seed(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch, on every device."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # CUDA's too


def collect_env_info() -> str:
    """Versions and devices, one per line, for the start of a log."""
    import torch

    lines = [
        f"Python: {platform.python_version()} ({sys.executable})",
        f"Platform: {platform.platform()}",
        f"CPU: {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        f"CUDA: {torch.version.cuda or 'not in this build of torch'}",
    ]
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        lines.append(f"GPU {i}: {gpu.name}, {size_in_words(gpu.total_memory)}")
    return "\n".join([*lines, *_package_lines()])


@functools.cache
def _package_lines() -> list[str]:
    """Name and version of each installed package of SHOWN_PACKAGES."""
    import importlib.metadata  # slow, and only this function needs it

    lines = []
    for name in SHOWN_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f"{name}: {importlib.metadata.version(name)}")
    return lines


def count_num_param(
    model: nn.Module | None = None, params: Iterable[torch.Tensor | dict] | None = None
) -> int:
    """Number of values in a model's parameters, or in tensors or an optimizer's groups of them."""
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("count_num_param needs a model or params")
    total = 0
    for item in params:
        tensors = item["params"] if isinstance(item, dict) else [item]
        total += sum(p.numel() for p in tensors)
    return total


def flat(content: dict, prefix: str = "") -> dict:
    """Nested keys joined by dots."""
    out = {}
    for key, value in content.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
