"""Frozen backbones by name: OpenAI's, open_clip's, the hub's, untrained ones, tiny, files."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import open_clip
import torch

from . import _archs, _fetch, _folders, _hub, _weights
from ._errors import CLIPError, did_you_mean
from ._openai import OPENAI_ARCHS
from .model import CLIP

CLIP_PREPROCESS = _archs.CLIP_PREPROCESS
TINY_PREPROCESS = {"mean": (0.3,) * 3, "std": (0.35,) * 3, "interpolation": "bilinear"}
RANDOM_SEED = 0
HUB = "hf-hub:"  # before owner/name, as in open_clip


def load_backbone(name: str, arch: str = "", device: str = "cpu", precision: str = "fp32") -> CLIP:
    """The frozen CLIP of a name; a process loads each only once.

    Args:
        name: an OpenAI name (``RN50``, ``ViT-B/16``), ``arch/tag`` of open_clip, ``arch/random``
            (untrained, from a fixed seed), ``hf-hub:owner/name``, ``tiny``, the path of a weight
            file, or of a folder with open_clip's files, as on the Hugging Face hub.
        arch: the architecture (open_clip's name, or ``tiny``) of a weight file without its own.
        precision: ``fp32``, ``fp16`` or ``bf16``, of the frozen weights; norms stay in fp32.

    Raises:
        CLIPError: an unknown name, or weights that are missing or do not fit.
    """
    if precision not in _archs.DTYPES:
        known = ", ".join(_archs.DTYPES)
        raise CLIPError(f"no precision named {precision!r}; known: {known}")
    path = _as_path(name)
    if arch and (path is None or path.is_dir()):
        raise CLIPError(
            f"MODEL.BACKBONE.ARCH is for weight files; {name} has an architecture, got {arch!r}"
        )
    return _cached(name, arch, str(torch.device(device)), precision, _identity(path))


def list_backbones() -> list[str]:
    """All names with published weights; ``arch/random`` and files are not listed."""
    tagged = {
        f"{arch}/{tag}"
        for arch, tag in open_clip.list_pretrained()
        if arch in open_clip.list_models() and _archs.unsupported_arch(arch) is None
    }
    return [*_archs.TINIES, *OPENAI_ARCHS, *sorted(tagged)]


def load_uncached(name: str, arch: str = "", device: str = "cpu", precision: str = "fp32") -> CLIP:
    """As ``load_backbone``, but a new copy."""
    path = _as_path(name)
    if name.startswith(HUB):
        return _from_hub(name, precision).to(device)
    if path is not None:
        model = _from_folder if path.is_dir() else functools.partial(_from_file, arch=arch)
        return model(path, name, precision=precision).to(device)
    if name in _archs.TINIES:
        from .tiny import VIT, tiny_weights

        state = tiny_weights(None if name == "tiny" else VIT)
        config = _archs.arch_config(name)
        return from_state(state, config, TINY_PREPROCESS, name, precision).to(device)
    arch, tag = _split(name)
    config = _archs.arch_config(arch)
    if tag == "random":
        return _random(config, name, precision).to(device)
    _hub.require_transformers(config["text_cfg"])  # before anything is downloaded
    published = open_clip.get_pretrained_cfg(arch, tag)
    config["quick_gelu"] = published.get("quick_gelu", config["quick_gelu"])
    state = _read_published(name, published)
    return from_state(state, config, published, name, precision).to(device)


def from_state(
    state: _weights.State,
    config: dict,
    preprocess: dict,
    name: str,
    precision: str = "fp32",
    folder: Path | None = None,
) -> CLIP:
    """The CLIP of a configuration with these weights.

    Args:
        folder: the backbone's own, which may have its tokenizer.

    Raises:
        CLIPError: they are of another architecture.
    """
    tokenizer = _archs.make_tokenizer(config, folder)
    with torch.random.fork_rng(devices=[]):
        model = _archs.build(config, precision, folder)
    _weights.fill(model, state, name)
    return _finish(CLIP(model, config, preprocess, name, tokenizer), model, precision)


def _read_published(name: str, published: dict) -> _weights.State:
    """Published weights; an archive, which could hold code, only with the published digest.

    Raises:
        CLIPError: missing, or an unknown archive.
    """
    path = _fetch.find_weights(name, published)
    if _weights.is_archive(path) and not _fetch.is_official(path, published.get("url", "")):
        raise CLIPError(
            f"{path}, found for {name}, is a TorchScript archive with an unknown sha256; "
            "if you trust it, name the file instead"
        )
    return _weights.read_weights(path)


def _random(config: dict, name: str, precision: str) -> CLIP:
    tokenizer = _archs.make_tokenizer(config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)
        model = _archs.build(config, precision)
    preprocess = _preprocess_of(name.removesuffix("/random"))
    return _finish(CLIP(model, config, preprocess, name, tokenizer), model, precision)


def _preprocess_of(arch: str) -> dict:
    """The images of an architecture's published weights, where all agree; else OpenAI's."""
    if arch in _archs.TINIES:
        return TINY_PREPROCESS
    keys = CLIP_PREPROCESS.keys()
    tags = open_clip.list_pretrained_tags_by_model(arch)
    published = [open_clip.get_pretrained_cfg(arch, tag) for tag in tags]
    found = [{key: cfg.get(key, CLIP_PREPROCESS[key]) for key in keys} for cfg in published]
    return found[0] if found and found.count(found[0]) == len(found) else CLIP_PREPROCESS


def _finish(backbone: CLIP, model: torch.nn.Module, precision: str) -> CLIP:
    if precision != "fp32":
        backbone.weights_hash  # noqa: B018  computed here, before the weights are rounded
        _archs.round_weights(model, precision, backbone.config)
    return backbone


@functools.lru_cache(maxsize=4)
def _cached(name: str, arch: str, device: str, precision: str, identity: tuple | None) -> CLIP:
    return load_uncached(name, arch, device, precision)


def _as_path(name: str) -> Path | None:
    """The weight file or folder that a name is the path of, or None for another kind of name.

    Raises:
        CLIPError: a path that does not exist, or a folder without open_clip's files.
    """
    if name in _archs.TINIES or name in OPENAI_ARCHS or name.startswith(HUB):
        return None
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):
        return path
    if os.path.isdir(path) and not _is_published(name):
        return _folders.check_folder(path)
    if path.suffix in _weights.SUFFIXES:
        raise CLIPError(f"no weight file at {name}")
    return None


def _identity(path: Path | None) -> tuple | None:
    """A value that changes with the file, or with the files of a folder."""
    if path is None:
        return None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat()) for file in files if file.is_file()]
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)


def _from_folder(path: Path, name: str, precision: str) -> CLIP:
    config, preprocess = _folders.read_config(path)
    state = _weights.read_weights(_folders.weight_file(path))
    return from_state(state, config, preprocess, name, precision, path)


def _from_hub(name: str, precision: str) -> CLIP:
    """A model of the hub; one that is not supported is refused before its weights are fetched."""
    repository = name.removeprefix(HUB)
    patterns = [_folders.CONFIG, *_hub.TOKENIZER_PATTERNS]
    folder = _fetch.find_hub_folder(repository, [_folders.CONFIG], patterns, "the model")
    config, preprocess = _folders.read_config(folder)
    _hub.require_transformers(config["text_cfg"])
    state = _read_published(name, {"hf_hub": f"{repository}/"})
    return from_state(state, config, preprocess, name, precision, folder)


def _from_file(path: Path, name: str, precision: str, arch: str = "") -> CLIP:
    state = _weights.read_weights(path)
    if arch:
        config = _archs.arch_config(arch)
        config["quick_gelu"] |= _weights.is_openai(state)
    elif _weights.is_openai(state):
        try:
            config = _archs.openai_config(state)
        except CLIPError as error:
            raise CLIPError(f"{path}: {error}") from None
    else:
        raise CLIPError(
            f"{path} does not contain its architecture; name it in MODEL.BACKBONE.ARCH, such as "
            "ViT-B-16 (or ViT-B-16-quickgelu, if it was trained with QuickGELU)"
        )
    preprocess = _preprocess_of(arch) if arch else CLIP_PREPROCESS
    return from_state(state, config, preprocess, name, precision)


def _is_published(name: str) -> bool:
    arch, _, tag = name.rpartition("/")
    return arch in open_clip.list_models() and open_clip.is_pretrained_cfg(arch, tag)


def _split(name: str) -> tuple[str, str]:
    """Architecture and tag of a name.

    Raises:
        CLIPError: no such name.
    """
    if name in OPENAI_ARCHS:
        return OPENAI_ARCHS[name], "openai"
    arch, _, tag = name.rpartition("/")
    if (arch in _archs.TINIES and tag == "random") or _is_published(name):
        return arch, tag
    if arch in open_clip.list_models():
        if tag == "random":
            return arch, tag
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise CLIPError(
            f"no weights {tag!r} of {arch}{did_you_mean(tag, tags)}; "
            f"known: {', '.join([*tags, 'random'])}"
        )
    raise CLIPError(
        f"no backbone named {name!r}{did_you_mean(name, list_backbones())}; known: tiny, "
        f"{', '.join(OPENAI_ARCHS)}, arch/tag of open_clip such as ViT-B-32/laion2b_s34b_b79k, "
        "arch/random, hf-hub:owner/name, or the path of a weight file or folder; "
        "`python train.py --list backbones` shows all"
    )
