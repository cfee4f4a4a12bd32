"""Storage of splits and draws: beside the data, or in the user's cache if these are read-only."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dassl.utils import UserError, cache_folder, write_json


def _folders(root: Path) -> tuple[Path, Path]:
    """The data folder ``root``, and the one in the user's cache for when that is read-only."""
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    return root, cache_folder("splits", f"{root.name}-{key}")


def find(root: Path, name: str) -> Path | None:
    """The stored file ``name`` of the data folder ``root``, if there is one."""
    paths = (folder / name for folder in _folders(root))
    return next((path for path in paths if path.is_file()), None)


def store(content: dict, root: Path, name: str) -> Path:
    """Write ``content`` as JSON to the file ``name``; returns its path."""
    failures = []
    for folder in _folders(root):
        path = folder / name
        try:
            write_json(content, path)
        except OSError as error:
            failures.append(f"{path} ({error.strerror})")
        else:
            return path
    raise UserError(
        f"can write neither {' nor '.join(failures)}; XDG_CACHE_HOME may name a cache folder "
        "that can be written"
    )
