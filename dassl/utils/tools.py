"""Files that are written whole or not at all, seeds, and what is known of the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import random
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import UserError

SHOWN_PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "Pillow", "yacs")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends well.

    A reader sees the old file or the new one, never a part of it, also after a kill or a power
    cut. The temporary name is the writer's own, hidden, and has the suffix of ``path``.

    Raises:
        FileNotFoundError: nothing was written to the temporary path.
        OSError: no space, no permission, ...; the message names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # some file systems do not sync folders
            _sync(path.parent, os.O_RDONLY)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(obj: Any, path: str | os.PathLike) -> None:
    """Write JSON atomically; NaN and infinity, which JSON has not, raise ValueError."""
    text = json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file; a missing or broken one is a UserError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


def mkdir_if_missing(dirname: str | os.PathLike) -> None:
    """Make a folder and those above it."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def check_isfile(fpath: str | os.PathLike) -> bool:
    """Whether a file is there; if not, the log says so."""
    found = Path(fpath).is_file()
    if not found:
        print(f"There is no file {fpath}")
    return found


def listdir_nohidden(path: str | os.PathLike, sort: bool = True) -> list[str]:
    """Names in a folder without those that start with a dot; a missing folder is a UserError."""
    try:
        names = [name for name in os.listdir(path) if not name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot list the folder {path}: {error.strerror}") from None
    return sorted(names) if sort else names


def set_random_seed(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # CUDA's too


def collect_env_info() -> str:
    """Versions and devices, one per line, for the head of a log."""
    lines = [
        f"Python: {platform.python_version()} ({sys.executable})",
        f"Platform: {platform.platform()}",
        f"CPU: {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        f"CUDA: {torch.version.cuda or 'not in this build of torch'}",
    ]
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        lines.append(f"GPU {i}: {gpu.name}, {gpu.total_memory / 2**30:.1f} GiB")
    for name in SHOWN_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f"{name}: {importlib.metadata.version(name)}")
    return "\n".join(lines)


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
            out[prefix + key] = value
    return out
