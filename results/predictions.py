"""``predictions.npz``: what a run predicts for each of its test images."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dassl.utils import UserError, atomic_path

FILE = "predictions.npz"
TYPES = {
    "task": np.int16,
    "label": np.int32,
    "classes": np.int32,
    "probabilities": np.float16,
    "label_probability": np.float32,
}
BETWEEN = "\0"  # between the paths of images, which may hold any other character


class ImageResults(NamedTuple):
    """The predictions of a run; image i of N is the same in runs of the same ``images``.

    images: digest of the tasks and paths of all images, in order.
    paths: of each image, relative to the image folder of its task.
    folders: image folder of each task, relative to DATASET.ROOT unless it lies elsewhere; empty in
        runs of earlier versions.
    task, label: (N,) ints.
    classes: (N, k) class within the task by rank, -1 where a task has fewer.
    probabilities: (N, k) of these classes.
    label_probability: (N,) of the right class.
    """

    images: str
    paths: list[str]
    folders: list[str]
    task: np.ndarray
    label: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    label_probability: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether the most probable class is the right one, (N,) bool."""
        return self.classes[:, 0] == self.label


def save_predictions(trainer: Any, folder: Path) -> None:
    """Write the predictions of the last evaluation.

    None are written for captions, questions and multi-label tasks, or without an evaluation.
    """
    from dassl.data.identity import image_folders, relative_paths

    parts: list[dict[str, np.ndarray]] = []
    paths: list[str] = []
    folders: list[str] = []
    for t, part in enumerate(trainer.task_trainers):
        folders += [
            _relative_to_root(place, part.cfg.DATASET.ROOT) for place in image_folders(part.dataset)
        ]
        predictions = part.predictions
        found = predictions.arrays() if predictions else {}
        items = getattr(part.dataset, part.cfg.TEST.SPLIT) or []
        items = predictions.of_items(items) if predictions else items
        if predictions and not items:
            continue  # a multi-label task
        if not found or len(found["label"]) != len(items):
            return
        if len(trainer.task_trainers) > 1:
            found["task"] = np.full_like(found["task"], t)
        parts.append(found)
        paths += relative_paths(part.dataset, items)
    if not parts:
        return
    width = max(part["classes"].shape[1] for part in parts)
    columns = {}
    for name, kind in TYPES.items():
        blank = -1 if name == "classes" else 0
        columns[name] = np.concatenate(
            [_padded(part[name], width, blank) for part in parts]
        ).astype(kind)
    texts = {"paths": _encoded(paths), "folders": _encoded(folders)}
    with atomic_path(folder / FILE) as temporary:
        np.savez_compressed(temporary, **texts, **columns)


def _relative_to_root(folder: str, root: str) -> str:
    """A folder relative to the root of the datasets, or its whole path if it lies elsewhere."""
    path = Path(folder).absolute()
    top = Path(root).expanduser().absolute()
    return path.relative_to(top).as_posix() if root and path.is_relative_to(top) else str(path)


def _encoded(texts: list[str]) -> np.ndarray:
    return np.frombuffer(BETWEEN.join(texts).encode("utf-8", "surrogateescape"), dtype=np.uint8)


def _decoded(blob: bytes) -> list[str]:
    return blob.decode("utf-8", "surrogateescape").split(BETWEEN)


def _padded(values: np.ndarray, width: int, blank: int) -> np.ndarray:
    """Rows (N, k) filled up to ``width`` columns; values (N,) are unchanged."""
    if values.ndim == 1:
        return values
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=blank)


def read_predictions(folder: Path) -> ImageResults | None:
    """The predictions of a run; None if it wrote none, as runs of earlier versions.

    Raises:
        UserError: the file is broken.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as content:
            blob, columns = content["paths"].tobytes(), {name: content[name] for name in TYPES}
            folders = _decoded(content["folders"].tobytes()) if "folders" in content else []
    except Exception as error:  # numpy and zipfile have several for a broken file
        kind = type(error).__name__
        raise UserError(f"{path} is damaged ({kind}): delete it to do without") from None
    paths = _decoded(blob)
    width = columns["classes"].size // max(len(paths), 1)
    for name, column in columns.items():
        if problem := _problem(name, column, len(paths), width):
            raise UserError(f"{path} is damaged ({name} {problem}): delete it to do without")
    digest = hashlib.sha256(blob + columns["task"].tobytes()).hexdigest()
    return ImageResults(digest, paths, folders, **columns)


def _problem(name: str, column: np.ndarray, images: int, width: int) -> str:
    """What is wrong with a column of the file; "" if nothing is.

    Args:
        width: the number of classes per image that are stored.
    """
    expected = (images, width) if name in ("classes", "probabilities") else (images,)
    if column.shape != expected or not width:
        return f"has the shape {column.shape} for {images} images"
    if column.dtype.kind != np.dtype(TYPES[name]).kind:
        return f"holds {column.dtype}"
    first = column[:, 0] if column.ndim == 2 else column
    if (first < 0).any():  # NaN is what a diverged run predicts
        return "holds a number below 0"
    return ""
