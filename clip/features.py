"""Stored features of the frozen image tower: a feature is computed once and then read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

ENCODE_BATCH = 64  # images that the tower sees at once: see encode_fixed


def feature_key(model: torch.nn.Module, transform: str, precision: str) -> dict[str, str]:
    """All that a feature depends on beside its image: a change in any of it is another store."""
    return {
        "weights": model.weights_hash,
        "output": "global",
        "precision": precision,
        "open_clip": open_clip.__version__,
        "transform": transform,
    }


class FeatureStore:
    """Un-normalised global image features (e,) by name, in memory and in a folder.

    Files are only added, each written whole under a name made of its content, so any number of
    processes may share the folder. A file that cannot be read is passed over: what it held is
    computed again.

    Args:
        folder: where stores lie; None: the user's cache folder.
        key: what the features depend on, from :func:`feature_key`.
    """

    def __init__(self, folder: str | Path | None, key: dict[str, str]):
        text = json.dumps(key, sort_keys=True)
        root = Path(folder) if folder else user_cache_path("softcpt") / "features"
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._place: dict[str, int] = {}  # name -> row
        self._rows: torch.Tensor | None = None  # (n, e)
        for path in sorted(self.folder.glob("*.safetensors")):
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                names = json.loads(file.metadata()["names"])
                self._remember(names, file.get_tensor("features"))
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            print(f"passing over the unreadable feature file {path} ({error})")

    def _remember(self, names: Sequence[str], features: torch.Tensor) -> None:
        if len(names) != len(features):
            raise ValueError(f"{len(names)} names for {len(features)} features")
        start = 0 if self._rows is None else len(self._rows)
        kept = features if self._rows is None else torch.cat([self._rows, features])
        self._rows = kept
        for row, name in enumerate(names, start):
            self._place.setdefault(name, row)

    def missing(self, names: Sequence[str]) -> list[str]:
        """The names, each once, whose features are not here yet."""
        return [name for name in dict.fromkeys(names) if name not in self._place]

    def rows(self, names: Sequence[str]) -> torch.Tensor:
        """Features (n, e) of names that are all here."""
        return self._rows[torch.tensor([self._place[name] for name in names])]

    def add(self, names: Sequence[str], features: torch.Tensor) -> None:
        """Keep features (n, e) under their names and write them to the folder."""
        features = features.detach().cpu().contiguous()
        self._remember(names, features)
        content = save({"features": features}, metadata={"names": json.dumps(list(names))})
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@torch.no_grad()
def encode_fixed(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features (B, e) of at most ENCODE_BATCH images, computed at that batch size.

    Kernels differ with the batch size in the last bits. A full batch every time makes a feature
    the same whichever other images happened to be missing beside it.
    """
    missing = ENCODE_BATCH - len(images)
    padded = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
    return model.encode_image(padded)[: len(images)]
