"""The names of OpenAI's ``clip.clip`` module, as CoOp and its descendants use them.

A fork's ``load_clip_to_cpu`` works as it stands: ``_MODELS[name]`` -> ``_download`` -> a file that
``torch.jit.load`` or ``torch.load`` opens -> ``build_model``. The embedded ``tiny`` goes the same
way.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from . import _archs, _fetch
from .backbones import (
    CLIP_PREPROCESS,
    OPENAI_ARCHS,
    TINY_PREPROCESS,
    from_state,
    load_uncached,
)
from .model import CLIP
from .simple_tokenizer import SimpleTokenizer as _Tokenizer
from .simple_tokenizer import tokenize

__all__ = ["_Tokenizer", "available_models", "build_model", "load", "tokenize"]

_TINY_URL = "tiny:"
_MODELS = {
    name: open_clip.get_pretrained_url(arch, "openai") for name, arch in OPENAI_ARCHS.items()
}
_MODELS["tiny"] = _TINY_URL


def available_models() -> list[str]:
    """OpenAI's names, and ``tiny``."""
    return list(_MODELS)


def load(
    name: str,
    device: str | torch.device | None = None,
    jit: bool = False,
    download_root: str | None = None,
) -> tuple[CLIP, Callable]:
    """A new frozen model, and the transform from a PIL image to its input.

    In fp16 on a GPU and fp32 on the CPU, as OpenAI's. ``name`` may be anything that
    ``load_backbone`` takes.

    Args:
        jit: accepted for compatibility; the model is never a TorchScript one.
        download_root: the folder of OpenAI's weights; by default ``~/.cache/clip``.
    """
    device = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if download_root and name in OPENAI_ARCHS:
        name = _download(_MODELS[name], download_root)
    model = load_uncached(name, device=device, precision="fp32" if device == "cpu" else "fp16")
    options = PreprocessCfg(
        size=model.image_size,
        mean=model.image_mean,
        std=model.image_std,
        interpolation=model.interpolation,
        resize_mode=model.resize_mode,
    )
    return model, image_transform_v2(options, is_train=False)


def build_model(state_dict: dict[str, torch.Tensor]) -> CLIP:
    """A frozen model, in fp16 like OpenAI's, of the architecture given by the shapes.

    Raises:
        CLIPError: not the weights of an OpenAI CLIP.
    """
    config = _archs.openai_config(state_dict)
    tiny = config == _archs.arch_config("tiny")
    preprocess = TINY_PREPROCESS if tiny else CLIP_PREPROCESS
    return from_state(dict(state_dict), config, preprocess, "state dict", "fp16")


def _download(url: str, root: str = os.path.expanduser("~/.cache/clip")) -> str:
    """The file of a URL of ``_MODELS``, from ``root`` or else from the network.

    Raises:
        CLIPError: it is missing and cannot be downloaded, or is not the published file.
    """
    if url == _TINY_URL:
        from .tiny import tiny_file

        return str(tiny_file())
    name = next((name for name, known in _MODELS.items() if known == url), url)
    return str(_fetch.find_url(name, url, Path(root)))
