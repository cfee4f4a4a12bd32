"""Training from Python: the command line of ``train.py`` as a function."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

import train
from dassl.utils import UserError

from .loading import load_run
from .run import LoadedRun


def train_run(
    output_dir: str | os.PathLike,
    *,
    trainer: str,
    config_file: str | os.PathLike = "",
    dataset_config_file: str | os.PathLike = "",
    protocol: str = "",
    backbone: str = "",
    root: str | os.PathLike = "",
    seed: int = 1,
    overrides: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> LoadedRun:
    """Train as ``train.py`` does with the same arguments, and load the run.

    A complete run in ``output_dir`` is only loaded; an interrupted one is resumed.

    Args:
        output_dir: the run directory.
        overrides: configuration keys and their values, such as ``{"DATASET.NUM_SHOTS": 16}``.
        quiet: print nothing; ``log.txt`` in the run directory has it all.

    Raises:
        UserError: an unknown name or key, or a value that is not allowed.
    """
    if not os.fspath(output_dir):
        raise UserError("output_dir is empty; it takes the folder of the run")
    flags = {
        "--output-dir": output_dir,
        "--trainer": trainer,
        "--config-file": config_file,
        "--dataset-config-file": dataset_config_file,
        "--protocol": protocol,
        "--backbone": backbone,
        "--root": root,
        "--seed": seed,
    }
    words = [word for flag, value in flags.items() if value != "" for word in (flag, str(value))]
    words += ["--quiet"] * quiet
    for key, value in (overrides or {}).items():
        if not isinstance(key, str) or not key:
            raise UserError(f"overrides takes configuration keys such as OPTIM.LR; got {key!r}")
        words += [key, _word(value)]
    args = train.parse_args(words)
    train.check_arguments(args)
    train.main(args)
    return load_run(output_dir)


def _word(value: Any) -> str:
    """A configuration value as a word of the command line."""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    return repr(value.item() if isinstance(value, np.generic) else value)
