"""Where feature stores lie, and the names of their files."""

from __future__ import annotations

import os
from pathlib import Path

from dassl.utils.files import cache_folder

SUFFIX = ".safetensors"
KEY_FILE, USED_FILE = "key.json", ".used"


def store_root(folder: str | Path | None) -> Path:
    """The folder of stores; for None and "", one in the user's cache."""
    return Path(os.path.expanduser(folder)) if folder else cache_folder("features")
