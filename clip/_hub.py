"""What a Hugging Face text tower or tokenizer needs beside the weights: files of their repository.

They are read with transformers, from the backbone's own folder or the hub's cache.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from . import _fetch
from ._errors import CLIPError
from ._tokenizers import HubTokenizer

MODEL_FILES = ("config.json",)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
)
# What belongs to them: without these a tokenizer would be another one.
TOKENIZER_PATTERNS = (
    *TOKENIZER_FILES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "config.json",
)


def load_tokenizer(text_cfg: dict, folder: Path | None) -> HubTokenizer:
    """The tokenizer of a text configuration that names one of the hub.

    Args:
        text_cfg: open_clip's, with ``hf_tokenizer_name``.
        folder: the backbone's own folder, whose tokenizer is preferred, as open_clip does.

    Raises:
        CLIPError: transformers or the tokenizer's files are missing.
    """
    name = text_cfg["hf_tokenizer_name"]
    require_transformers(text_cfg)
    from open_clip.tokenizer import HFTokenizer

    if folder is None or not _fetch.has_any(folder, TOKENIZER_FILES):
        folder = _fetch.find_hub_folder(name, TOKENIZER_FILES, TOKENIZER_PATTERNS, "the tokenizer")
    options = text_cfg.get("tokenizer_kwargs") or {}
    try:
        with _fetch.quiet():
            source = HFTokenizer(str(folder), text_cfg["context_length"], **options)
    except Exception as error:  # transformers raises nearly anything on files it cannot read
        reason = str(error).strip().split("\n")[0][:200]
        raise CLIPError(f"the tokenizer in {folder} cannot be read: {reason}") from None
    return HubTokenizer(source)


def model_folder(name: str, folder: Path | None) -> Path:
    """The folder with the ``config.json`` of a text model of the hub.

    Raises:
        CLIPError: the file is missing.
    """
    if folder is not None and _fetch.has_any(folder, MODEL_FILES):
        return folder
    return _fetch.find_hub_folder(name, MODEL_FILES, MODEL_FILES, "the configuration of the model")


def require_transformers(text_cfg: dict) -> None:
    """Refuse a text configuration that needs a package that is not installed.

    Raises:
        CLIPError: it names a tokenizer or a model of the hub, and transformers is missing.
    """
    what = text_cfg["hf_model_name"] or text_cfg["hf_tokenizer_name"]
    if what and importlib.util.find_spec("transformers") is None:
        part = "text model" if text_cfg["hf_model_name"] else "tokenizer"
        raise CLIPError(
            f"the {part} {what} is read with transformers, which is not installed: `make extras`"
        )
