"""Stored features of the frozen image tower: each is computed once, then read.

    python -m clip.features info|verify|clear [--dir DIR]

The key of a feature is its weights, output, precision, library version, transform, image content
and augmentation; a change in any of them is a miss.
"""

from ._admin import Part, clear, make_room, parts, verify_shards
from ._digests import DigestCache
from ._store import ENCODE_BATCH, FeatureStore, encode_fixed, feature_key, store_root

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
