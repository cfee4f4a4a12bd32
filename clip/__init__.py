"""Frozen CLIP models: backbones by name, tokens, features of images and prompts.

It has the public names of OpenAI's ``clip`` package that CoOp uses, on top of open_clip.
"""

from typing import TYPE_CHECKING

from dassl.utils.lazy import lazy_imports

if TYPE_CHECKING:
    from ._errors import CLIPError
    from ._graphs import without_graphs
    from ._tokenizers import Tokenizer
    from .backbones import list_backbones, load_backbone
    from .clip import available_models, load, tokenize
    from .model import CLIP
    from .text import Prompts, TextTower
    from .text_encoder import TextEncoder

__all__ = [
    "CLIP",
    "CLIPError",
    "Prompts",
    "TextEncoder",
    "TextTower",
    "Tokenizer",
    "available_models",
    "list_backbones",
    "load",
    "load_backbone",
    "tokenize",
    "without_graphs",
]

__getattr__, __dir__ = lazy_imports(__name__)
