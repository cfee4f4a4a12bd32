"""Stored features of the frozen image tower: each is computed once, then read.

    python -m clip.features info|verify|clear [--dir DIR]

The key of a feature is its weights, output, precision, library version, transform, image content
and augmentation; a change in any of them is a miss.
"""

from typing import TYPE_CHECKING

from dassl.utils.lazy import lazy_imports

if TYPE_CHECKING:
    from ._admin import Part, clear, make_room, parts, verify_shards
    from ._digests import DigestCache
    from ._paths import store_root
    from ._store import ENCODE_BATCH, FeatureStore, encode_fixed, feature_key

__all__ = [
    "ENCODE_BATCH",
    "DigestCache",
    "FeatureStore",
    "Part",
    "clear",
    "encode_fixed",
    "feature_key",
    "make_room",
    "parts",
    "store_root",
    "verify_shards",
]

__getattr__, __dir__ = lazy_imports(__name__)
