"""Finding the folder of a dataset, and hints if it does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from dassl.utils import UserError, nearest


def find_folder(root: str, dataset_dir: str, image_dir: str, name: str) -> Path:
    """``root/dataset_dir``; a UserError unless ``image_dir`` is in it.

    Args:
        name: of the dataset, for the message.
    """
    holds = f"that holds {dataset_dir}/" if dataset_dir else "of the images"
    if not root:
        raise UserError(f"{name} needs a data folder: give the one {holds} with --root")
    folder = Path(root).expanduser().absolute() / dataset_dir
    if not (folder / image_dir).is_dir():
        hint = near_miss(folder, image_dir) or f"give the folder {holds} with --root"
        raise UserError(f"{name}: there is no folder {folder / image_dir}; {hint}")
    return folder


def near_miss(folder: Path, image_dir: str) -> str:
    """A hint which existing folder to move or rename to ``folder/image_dir``; "" without one.

    Args:
        folder: where the dataset should be; its parent is the root of all datasets.
    """
    root = folder.parent
    if not root.is_dir():
        return ""
    if not folder.is_dir():
        if image_dir and (root / image_dir).is_dir():
            return (
                f"{root} looks like the dataset's own folder: move its content into {folder}, "
                "or rename it and give its parent"
            )
        if other := _alike(root, folder.name, lambda path: (path / image_dir).is_dir()):
            return f"but there is {other}: rename it with  mv '{other}' '{folder}'"
        return ""
    first, *rest = Path(image_dir).parts or ("",)
    if rest and (folder / first).is_dir():
        return near_miss(folder / first, str(Path(*rest)))
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (inner / image_dir).is_dir():
            return (
                f"but there is {inner / image_dir}, one folder deeper: move it up with  "
                f"mv '{inner}'/* '{folder}'"
            )
    if other := _alike(folder, first, Path.is_dir):
        return f"but there is {other}: rename it with  mv '{other}' '{folder / first}'"
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return f"{folder} holds {', '.join(found[:8]) or 'no folder'}"


def _alike(parent: Path, name: str, fits) -> Path | None:
    """A folder in ``parent`` with a similar name that passes ``fits``."""
    folders = {_letters(p.name): p for p in sorted(parent.iterdir()) if p.is_dir() and fits(p)}
    near = nearest(_letters(name), folders) if name else None
    return folders[near] if near else None


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
