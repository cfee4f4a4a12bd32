"""Storage of splits and draws: beside the data, or in the user's cache if these are read-only."""

from __future__ import annotations

import hashlib
from pathlib import Path

import platformdirs

from dassl.utils import UserError, mkdir_if_missing, write_json


def user_cache() -> Path:
    """The folder of this project under the user's cache directory."""
    return platformdirs.user_cache_path("softcpt")


def cache_folder(root: Path) -> Path:
    """The folder used instead of the data folder ``root`` if that is read-only."""
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    return user_cache() / "splits" / f"{root.name}-{key}"


def find(root: Path, name: str) -> Path | None:
    """The stored file ``name`` of the data folder ``root``, if there is one."""
    paths = (folder / name for folder in (root, cache_folder(root)))
    return next((path for path in paths if path.is_file()), None)


def store(content: dict, root: Path, name: str) -> Path:
    """Write ``content`` as JSON to the file ``name``; returns its path."""
    failures = []
    for folder in (root, cache_folder(root)):
        path = folder / name
        try:
            mkdir_if_missing(path.parent)
            write_json(content, path)
        except OSError as error:
            failures.append(f"{path} ({error.strerror})")
        else:
            return path
    raise UserError(
        f"can write neither {' nor '.join(failures)}; XDG_CACHE_HOME may name a cache folder "
        "that can be written"
    )
