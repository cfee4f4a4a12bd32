"""A store of image features by name, in memory-mapped files that processes share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dassl.utils.files import atomic_path

from ._paths import KEY_FILE, SUFFIX, USED_FILE, store_root

ENCODE_BATCH = 64  # images that the tower sees at once: see encode_fixed


def feature_key(
    model: torch.nn.Module,
    transform: str,
    precision: str,
    output: str = "global",
    dtype: str = "",
) -> dict[str, str]:
    """Everything but the image that a feature depends on; each value is a store of its own.

    Args:
        transform: a description of the image transform.
        precision: the precision of the tower.
        output: the name of the tower's output.
        dtype: the stored dtype; "": as computed.
    """
    import open_clip

    return {
        "weights": model.weights_hash,
        "output": output,
        "precision": precision,
        "dtype": dtype,
        "open_clip": open_clip.__version__,
        "transform": transform,
    }


class FeatureStore:
    """Un-normalised image features of one kind by name, in the files of one folder.

    Files are only added, each atomically under the hash of its content, and memory-mapped, so that
    processes share the folder and its pages. An unreadable file is ignored, and its features are
    computed again. If the folder is not writable, features stay in memory.

    Args:
        folder: the folder of stores; None: in the user's cache.
        key: the result of :func:`feature_key`.
        view: which augmentation of the images; each has its own folder.
        label: a readable name, such as the backbone's.
    """

    def __init__(
        self,
        folder: str | Path | None,
        key: dict[str, str],
        view: str = "plain",
        label: str = "",
    ):
        self.key, self.label, self.root = key, label, store_root(folder)
        self.folder = self.root / _digest(json.dumps(key, sort_keys=True).encode()) / view
        self._row: dict[str, int] = {}  # name -> row, counted over all shards
        self._shards: list[torch.Tensor] = []  # (n_i, ...) each, mapped
        self._ends = torch.zeros(0, dtype=torch.long)  # rows up to and with each shard
        self._seen: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read files that other processes have added, and mark the store as used."""
        try:
            files = self.folder.glob(f"[!.]*{SUFFIX}")  # without the temporary ones
            found = sorted(path for path in files if path.name not in self._seen)
            if found or self._seen:
                (self.folder / USED_FILE).touch()
        except OSError:  # a folder that was evicted just now, or may not be written to
            found = []
        for path in found:
            self._read(path)

    def _read(self, path: Path) -> None:
        self._seen.add(path.name)
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                if about["digest"] != _digest(about["names"].encode()):
                    raise ValueError("its names are damaged")
                self._remember(json.loads(about["names"]), file.get_tensor("features"))
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            print(f"ignoring the unreadable feature file {path} ({error})")

    def _remember(self, names: Sequence[str], features: torch.Tensor) -> None:
        if len(names) != len(features):
            raise ValueError(f"{len(names)} names for {len(features)} features")
        like = self._shards[0] if self._shards else features
        if features.shape[1:] != like.shape[1:] or features.dtype != like.dtype:
            raise ValueError(f"{features.shape[1:]} {features.dtype} among {like.shape[1:]}")
        start = len(self)
        for row, name in enumerate(names, start):
            self._row.setdefault(name, row)
        self._shards.append(features)
        self._ends = torch.cat([self._ends, torch.tensor([start + len(features)])])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def missing(self, names: Sequence[str]) -> list[str]:
        """Names without a feature, each once."""
        return [name for name in dict.fromkeys(names) if name not in self._row]

    def indices(self, names: Sequence[str]) -> torch.Tensor:
        """Rows (n,) of stored names, for :meth:`gather`."""
        return torch.tensor([self._row[name] for name in names], dtype=torch.long)

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        """Features (n, ...) of the rows ``index`` (n,), read from their files."""
        if len(self._shards) == 1:
            return self._shards[0][index]
        shard = torch.bucketize(index, self._ends, right=True)  # (n,)
        out = self._shards[0].new_empty((len(index), *self._shards[0].shape[1:]))
        for i in shard.unique().tolist():
            here = shard == i
            start = int(self._ends[i]) - len(self._shards[i])
            out[here] = self._shards[i][index[here] - start]
        return out

    def rows(self, names: Sequence[str]) -> torch.Tensor:
        """Features (n, ...) of stored names."""
        return self.gather(self.indices(names))

    def add(self, names: Sequence[str], features: torch.Tensor) -> None:
        """Store features (n, ...) under their names, as one file."""
        if len(names) != len(features):
            raise ValueError(f"{len(names)} names for {len(features)} features")
        features = features.detach().cpu().contiguous()
        listed = json.dumps(list(names))
        about = {"names": listed, "digest": _digest(listed.encode())}
        content = save({"features": features}, metadata=about)
        target = self.folder / f"{_digest(content)}{SUFFIX}"
        try:
            self._write(target, content)
        except OSError as error:
            print(f"cannot store features in {self.root} ({error}); they stay in memory")
            self._remember(names, features)
        else:
            self._read(target)

    def _write(self, target: Path, content: bytes) -> None:
        described = self.folder.parent / KEY_FILE
        if not described.exists():
            with atomic_path(described) as path:
                text = json.dumps({"label": self.label, "key": self.key}, indent=2)
                path.write_text(text, encoding="utf-8")
        with atomic_path(target) as path:
            path.write_bytes(content)
        (self.folder / USED_FILE).touch()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@torch.no_grad()
def encode_fixed(
    model: torch.nn.Module,
    images: torch.Tensor,
    outputs: frozenset[str] = frozenset({"global"}),
) -> dict[str, torch.Tensor]:
    """Outputs (B, ...) of at most ENCODE_BATCH images, computed at exactly that batch size.

    Kernels round differently at different batch sizes. With one size, the feature of an image does
    not depend on the other images of its batch.
    """
    missing = ENCODE_BATCH - len(images)
    padded = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
    found = model.encode_outputs(padded, outputs)
    return {name: found[name][: len(images)] for name in outputs}
