"""sha256 of files and of JSON values, in hex."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any


def hash_file(path: str | os.PathLike) -> str:
    """The digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(content: Any) -> str:
    """The digest of a value as compact JSON with sorted keys; tuples and lists are the same."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
