"""The tiny images of the miniatures, and MATLAB files as the datasets have them."""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, BLOCKS = 32, 4  # pixels and blocks of colour along a side


@lru_cache(maxsize=2)
def _pattern(name: str) -> np.ndarray:
    """Blocks of colour that belong to a class: (SIZE, SIZE, 3)."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    blocks = rng.integers(40, 216, (BLOCKS, BLOCKS, 3))
    return np.kron(blocks, np.ones((SIZE // BLOCKS, SIZE // BLOCKS, 1), dtype=int))


@lru_cache(maxsize=64)
def _noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-40, 41, (SIZE, SIZE, 3))


def save(path: Path, name: str, number: int) -> None:
    """Image ``number`` of class ``name``; the format goes by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (_pattern(name) + _noise(number)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write_mat(path: Path, content: dict, fields: tuple[str, ...] = ()) -> None:
    """A MATLAB 5 file; with ``fields`` each variable is a row of structs."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    if fields:
        types = [(field, object) for field in fields]
        content = {key: np.array([rows], dtype=types) for key, rows in content.items()}
    else:
        content = {key: _array(value) for key, value in content.items()}
    savemat(path, content)


def _array(value: list) -> np.ndarray:
    """Numbers as a matrix, texts as a cell array."""
    return np.array(value, dtype=object if isinstance(value[0][0], str) else np.uint8)
