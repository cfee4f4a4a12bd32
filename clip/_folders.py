"""Folders with open_clip's files, as it saves them and as the Hugging Face hub has them."""

from __future__ import annotations

import json
from pathlib import Path

from . import _archs
from ._errors import CLIPError

CONFIG = "open_clip_config.json"
RESIZE_MODES = ("shortest", "squash")
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def check_folder(path: Path) -> Path:
    """The folder itself, if it has a configuration and weights.

    Raises:
        CLIPError: a file is missing.
    """
    if not (path / CONFIG).is_file():
        hint = ""
        if (path / "config.json").is_file():
            hint = (
                "; it looks like a model of transformers, which open_clip does not read: use the "
                "files of the same model's open_clip repository"
            )
        raise CLIPError(f"the folder {path} has no {CONFIG}, which names the architecture{hint}")
    weight_file(path)
    return path


def weight_file(path: Path) -> Path:
    """The weights in a folder.

    Raises:
        CLIPError: there are none.
    """
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise CLIPError(f"the folder {path} has no weights: neither {' nor '.join(WEIGHTS)}")


def read_config(path: Path) -> tuple[dict, dict]:
    """Architecture and preprocessing of a folder.

    Raises:
        CLIPError: the configuration cannot be read, or is not supported.
    """
    try:
        content = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        config, preprocess = content["model_cfg"], content.get("preprocess_cfg", {})
        reason = _archs.unsupported(config)
        if not reason:
            config = _archs.normalize(config)
        preprocess = {key: preprocess.get(key) or v for key, v in _archs.CLIP_PREPROCESS.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CLIPError(
            f"{path / CONFIG} is no configuration of open_clip: {type(error).__name__} {error}"
        ) from None
    if not reason and preprocess["resize_mode"] not in RESIZE_MODES:
        reason = f"its images are resized in the mode {preprocess['resize_mode']!r}"
    if reason:
        raise CLIPError(f"the model in {path} is not supported: {reason}")
    return config, preprocess
