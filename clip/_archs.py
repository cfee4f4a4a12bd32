"""Architectures: their configurations, which are supported, and models without weights."""

from __future__ import annotations

import copy
from dataclasses import asdict, fields
from pathlib import Path

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import (
    CLIPTextCfg,
    CLIPVisionCfg,
    CustomTextCLIP,
    convert_weights_to_lp,
)
from open_clip.transformer import LayerNormFp32
from torch import nn

from . import _hub
from ._errors import CLIPError, did_you_mean
from ._tokenizers import Tokenizer
from .simple_tokenizer import SimpleTokenizer, shared_tokenizer

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

CLIP_PREPROCESS = {
    "mean": OPENAI_DATASET_MEAN,
    "std": OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
PARTS = {"embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg", "quick_gelu", "custom_text"}
PARTS |= {"init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}

# A CLIP in OpenAI's proportions (a head per 64 channels, QuickGELU) for 32 x 32 images.
TINY = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 1,
        "layers": 2,
    },
}

# The same with a vision transformer, for methods that learn in one.
TINY_VIT = {
    **TINY,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8},
}
TINIES = {"tiny": TINY, "tiny-vit": TINY_VIT}


def arch_config(arch: str) -> dict:
    """A copy of an architecture's configuration with all defaults filled in.

    Raises:
        CLIPError: no such architecture, or one that is not supported.
    """
    if arch in TINIES:
        return normalize(TINIES[arch])
    config = open_clip.get_model_config(arch) if arch in open_clip.list_models() else None
    if config is None:
        known = open_clip.list_models()
        supported = [*TINIES, *(a for a in known if unsupported_arch(a) is None)]
        raise CLIPError(
            f"no architecture named {arch!r}{did_you_mean(arch, known)}; "
            f"known: {', '.join(supported)}"
        )
    reason = unsupported_arch(arch)
    if reason:
        raise CLIPError(f"architecture {arch} is not supported: {reason}")
    return normalize(config)


def unsupported_arch(arch: str) -> str | None:
    """Why an architecture of open_clip is not supported; None if it is."""
    return unsupported(open_clip.get_model_config(arch))


def unsupported(config: dict) -> str | None:
    """Why an open_clip configuration is not supported; None if it is."""
    if "audio_cfg" in config:
        return "it encodes sound, not images"
    if set(config) - PARTS:
        return "it is not a model of an image tower and a text tower, such as a generative one"
    vision, text = config["vision_cfg"], config["text_cfg"]
    if str(vision.get("timm_model_name", "")).startswith("naflex"):
        return "its images have no fixed size (NaFlex)"
    if text.get("tokenizer_mode"):
        return f"its tokenizer works in the mode {text['tokenizer_mode']!r}"
    for part, cls, tower in ((vision, CLIPVisionCfg, "image"), (text, CLIPTextCfg, "text")):
        if unknown := sorted(set(part) - {field.name for field in fields(cls)}):
            return (
                f"its {tower} tower has the options {', '.join(unknown)}, which open_clip "
                f"{open_clip.__version__} does not have"
            )
    return None


def normalize(config: dict) -> dict:
    """An open_clip configuration with defaults filled in, as plain JSON values."""
    vision = asdict(CLIPVisionCfg(**config["vision_cfg"]))
    vision["timm_model_pretrained"] = False
    if not isinstance(vision["layers"], int):
        vision.update(layers=list(vision["layers"]), patch_size=None)
    text = asdict(CLIPTextCfg(**config["text_cfg"]))
    return {
        **copy.deepcopy(config),
        "quick_gelu": config.get("quick_gelu", False),
        "custom_text": bool(config.get("custom_text") or text["hf_model_name"]),
        "vision_cfg": vision,
        "text_cfg": text,
    }


def openai_config(state: dict[str, torch.Tensor]) -> dict:
    """The configuration of OpenAI's weights, from their names and shapes.

    Raises:
        CLIPError: they are not OpenAI's.
    """
    try:
        vision = _vit_shape(state) if "visual.proj" in state else _resnet_shape(state)
        width = state["ln_final.weight"].shape[0]
        text = {
            "context_length": state["positional_embedding"].shape[0],
            "vocab_size": state["token_embedding.weight"].shape[0],
            "width": width,
            "heads": width // 64,
            "layers": _count(state, "transformer.resblocks.", 2),
        }
        embed_dim = state["text_projection"].shape[1]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise CLIPError(
            f"these are not the weights of an OpenAI CLIP: {error} is missing or has another shape"
        ) from None
    if width < 64 or width % 64:
        raise CLIPError(
            f"these are not the weights of an OpenAI CLIP: a text width of {width} is no multiple "
            "of 64; name the architecture in MODEL.BACKBONE.ARCH"
        )
    return normalize(
        {"embed_dim": embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    )


def _vit_shape(state: dict[str, torch.Tensor]) -> dict:
    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    layers = _count(state, "visual.transformer.resblocks.", 3)
    return {"layers": layers, "width": width, "patch_size": patch, "image_size": patch * grid}


def _resnet_shape(state: dict[str, torch.Tensor]) -> dict:
    grid = round((state["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "layers": [_count(state, f"visual.layer{i}.", 2) for i in (1, 2, 3, 4)],
        "width": state["visual.layer1.0.conv1.weight"].shape[0],
        "image_size": 32 * grid,
    }


def _count(state: dict[str, torch.Tensor], prefix: str, level: int) -> int:
    """Number of different words at a level of the dotted names that begin with prefix."""
    return len({name.split(".")[level] for name in state if name.startswith(prefix)})


def build(config: dict, precision: str = "fp32", folder: Path | None = None) -> nn.Module:
    """An open_clip model of a normalised configuration, in fp32, initialised from torch's RNG.

    Args:
        precision: decides only whether layer norms compute in fp32 within a rounded model.
        folder: the backbone's own, which may have the configuration of a Hugging Face text model.

    Raises:
        CLIPError: no model has these sizes, or what its text tower needs is missing.
    """
    config = copy.deepcopy(config)
    cls = CustomTextCLIP if config.pop("custom_text") else open_clip.CLIP
    cls = CoCa if "multimodal_cfg" in config else cls
    text = config["text_cfg"]
    text["output_tokens"] = config["vision_cfg"]["output_tokens"] = False  # features alone
    if text["hf_model_name"]:
        _hub.require_transformers(text)
        text["hf_model_pretrained"] = False
        text["hf_model_name"] = str(_hub.model_folder(text["hf_model_name"], folder))
    try:
        return cls(**config, cast_dtype=None if precision == "fp32" else DTYPES[precision])
    except Exception as error:  # sizes from a file: asserts, shapes, memory
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise CLIPError(f"no CLIP can be built with the sizes {config}: {reason}") from None


def round_weights(model: nn.Module, precision: str, config: dict) -> None:
    """Round weight matrices in place, as in OpenAI's fp16 models; norms stay in fp32."""
    if precision == "fp32":
        return
    dtype, vision, text = DTYPES[precision], config["vision_cfg"], config["text_cfg"]
    others = vision["timm_model_name"], text["hf_model_name"], text["proj_bias"]
    if not any(others) and "multimodal_cfg" not in config:
        convert_weights_to_lp(model, dtype)
        return
    exact = [x for x in (model.logit_scale, model.logit_bias) if x is not None]
    values = [x.data.clone() for x in exact]
    model.to(dtype)
    for module in model.modules():
        if isinstance(module, LayerNormFp32):
            module.float()
    for parameter, value in zip(exact, values, strict=True):
        parameter.data = value


def make_tokenizer(config: dict, folder: Path | None = None) -> Tokenizer:
    """The tokenizer of an architecture, with the text cleaning of its training.

    Args:
        folder: the backbone's own, which may have the files of a tokenizer of the hub.

    Raises:
        CLIPError: what the tokenizer needs is missing.
    """
    text = config["text_cfg"]
    if text["hf_tokenizer_name"]:
        return _hub.load_tokenizer(text, folder)
    options = text["tokenizer_kwargs"]
    return SimpleTokenizer(**options) if options else shared_tokenizer()
