"""Frozen backbones by name: OpenAI's, open_clip's, untrained ones, the embedded tiny one, files."""

from __future__ import annotations

import functools
from pathlib import Path

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from . import _archs, _fetch, _weights
from ._errors import CLIPError, did_you_mean
from ._openai import OPENAI_ARCHS
from .model import CLIP

CLIP_PREPROCESS = {
    "mean": OPENAI_DATASET_MEAN,
    "std": OPENAI_DATASET_STD,
    "interpolation": "bicubic",
}
TINY_PREPROCESS = {"mean": (0.3,) * 3, "std": (0.35,) * 3, "interpolation": "bilinear"}
RANDOM_SEED = 0


def load_backbone(name: str, arch: str = "", device: str = "cpu", precision: str = "fp32") -> CLIP:
    """The frozen CLIP of a name; loading the same one again in a process costs nothing.

    Args:
        name: an OpenAI name (``RN50``, ``ViT-B/16``), ``arch/tag`` of open_clip, ``arch/random``
            (untrained, from a fixed seed), ``tiny``, or the path of a weight file.
        arch: the architecture (open_clip's name, or ``tiny``), for files that do not tell theirs.
        precision: ``fp32``, ``fp16`` or ``bf16``, of the frozen weights; norms stay in fp32.

    Raises:
        CLIPError: an unknown name, weights that are not there or do not fit.
    """
    if precision not in _archs.DTYPES:
        known = ", ".join(_archs.DTYPES)
        raise CLIPError(f"no precision named {precision!r}; known: {known}")
    path = _as_file(name)
    if arch and path is None:
        raise CLIPError(f"{name} tells its architecture; {arch!r} is only for weight files")
    return _cached(name, arch, str(torch.device(device)), precision, _identity(path))


def list_backbones() -> list[str]:
    """Every name that weights are published for; ``arch/random`` and files come on top."""
    tagged = {
        f"{arch}/{tag}"
        for arch, tag in open_clip.list_pretrained()
        if arch in open_clip.list_models() and _archs.why_not(arch) is None
    }
    return ["tiny", *OPENAI_ARCHS, *sorted(tagged)]


def load_uncached(name: str, arch: str = "", device: str = "cpu", precision: str = "fp32") -> CLIP:
    """As ``load_backbone``, but a copy of the caller's own."""
    path = _as_file(name)
    if path is not None:
        return _from_file(path, name, arch, precision).to(device)
    if name == "tiny":
        from .tiny import tiny_weights

        return from_state(
            tiny_weights(), _archs.arch_config("tiny"), TINY_PREPROCESS, name, precision
        ).to(device)
    arch, tag = _split(name)
    config = _archs.arch_config(arch)
    if tag == "random":
        return _random(config, name, precision).to(device)
    published = open_clip.get_pretrained_cfg(arch, tag)
    config["quick_gelu"] = published.get("quick_gelu", config["quick_gelu"])
    state = _read_published(name, published)
    return from_state(state, config, published, name, precision).to(device)


def from_state(
    state: _weights.State, config: dict, preprocess: dict, name: str, precision: str = "fp32"
) -> CLIP:
    """The CLIP of a configuration with these weights.

    Raises:
        CLIPError: they are of another architecture.
    """
    with torch.random.fork_rng(devices=[]):
        model = _archs.build(config, precision)
    _weights.fill(model, state, name)
    return _finish(model, config, preprocess, name, precision)


def _read_published(name: str, published: dict) -> _weights.State:
    """Weights of a name; an archive, which could hold code, only if its digest is the known one.

    Raises:
        CLIPError: not to be had, or an unknown archive.
    """
    path = _fetch.find_weights(name, published)
    if _weights.is_archive(path) and not _fetch.is_official(path, published.get("url", "")):
        raise CLIPError(
            f"{path}, found for {name}, is a TorchScript archive with an unknown sha256; "
            "if you trust it, name the file instead"
        )
    return _weights.read_weights(path)


def _random(config: dict, name: str, precision: str) -> CLIP:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)
        model = _archs.build(config, precision)
    preprocess = TINY_PREPROCESS if name == "tiny/random" else CLIP_PREPROCESS
    return _finish(model, config, preprocess, name, precision)


def _finish(model, config: dict, preprocess: dict, name: str, precision: str) -> CLIP:
    backbone = CLIP(model, config, preprocess, name, _archs.make_tokenizer(config))
    if precision != "fp32":
        backbone.weights_hash  # noqa: B018  computed here, before the weights are rounded
        _archs.round_weights(model, precision, config)
    return backbone


@functools.lru_cache(maxsize=4)
def _cached(name: str, arch: str, device: str, precision: str, identity: tuple | None) -> CLIP:
    return load_uncached(name, arch, device, precision)


def _as_file(name: str) -> Path | None:
    """The path that a name is, or None; a path is told by its suffix or by being there.

    Raises:
        CLIPError: a path to nothing.
    """
    if name == "tiny" or name in OPENAI_ARCHS:
        return None
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in _weights.SUFFIXES:
        raise CLIPError(f"no weight file at {name}")
    return None


def _identity(path: Path | None) -> tuple | None:
    """What changes when a file does."""
    if path is None:
        return None
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino


def _from_file(path: Path, name: str, arch: str, precision: str) -> CLIP:
    state = _weights.read_weights(path)
    if arch:
        config = _archs.arch_config(arch)
        config["quick_gelu"] |= _weights.is_openai(state)
    elif _weights.is_openai(state):
        config = _archs.openai_config(state)
    else:
        raise CLIPError(
            f"{path} does not tell its architecture; name it in MODEL.BACKBONE.ARCH, "
            f"such as ViT-B-16 (or ViT-B-16-quickgelu, if it was trained with QuickGELU)"
        )
    preprocess = TINY_PREPROCESS if arch == "tiny" else CLIP_PREPROCESS
    return from_state(state, config, preprocess, name, precision)


def _split(name: str) -> tuple[str, str]:
    """Architecture and tag of a name that is not a file.

    Raises:
        CLIPError: no such name.
    """
    if name in OPENAI_ARCHS:
        return OPENAI_ARCHS[name], "openai"
    if name == "tiny/random":
        return "tiny", "random"
    arch, _, tag = name.rpartition("/")
    if name == "tiny/random":
        return arch, tag
    if arch in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(arch)
        if tag == "random" or open_clip.is_pretrained_cfg(arch, tag):
            return arch, tag
        raise CLIPError(
            f"no weights {tag!r} of {arch}{did_you_mean(tag, tags)}; "
            f"known: {', '.join([*tags, 'random'])}"
        )
    raise CLIPError(
        f"no backbone named {name!r}{did_you_mean(name, list_backbones())}; known: tiny, "
        f"{', '.join(OPENAI_ARCHS)}, arch/tag of open_clip such as ViT-B-32/laion2b_s34b_b79k, "
        "arch/random, or the path of a weight file; `python train.py --list` shows all"
    )
