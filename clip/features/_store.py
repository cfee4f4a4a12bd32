"""Features by name in memory-mapped files that any number of processes share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from clip._files import atomic_path

ENCODE_BATCH = 64  # images that the tower sees at once: see encode_fixed
SUFFIX = ".safetensors"
KEY_FILE, USED_FILE = "key.json", ".used"


def store_root(folder: str | Path | None) -> Path:
    """Where stores lie: the folder, or, for None and "", one in the user's cache."""
    return Path(folder).expanduser() if folder else user_cache_path("softcpt") / "features"


def feature_key(
    model: torch.nn.Module,
    transform: str,
    precision: str,
    output: str = "global",
    dtype: str = "",
) -> dict[str, str]:
    """All that a feature depends on beside its image: a change in any of it is another store.

    Args:
        transform: a description of what is done to an image before the tower sees it.
        precision: how the tower computes.
        output: the name of the tower's output.
        dtype: how the features are kept; "" for as they are computed.
    """
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

    Files are only added, each written whole under a name made of its content, and mapped into
    memory, so that processes share both the folder and its pages. A file that cannot be read is
    passed over: what it held is computed again. Where the folder cannot be written to, features
    are kept in memory.

    Args:
        folder: where stores lie; None: the user's cache folder.
        key: what the features depend on, from :func:`feature_key`.
        view: which augmentation of the images; each has its own folder.
        label: a name for people, such as the backbone's.
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
        self._place: dict[str, int] = {}  # name -> row, counted over all shards
        self._shards: list[torch.Tensor] = []  # (n_i, ...) each, mapped
        self._ends = torch.zeros(0, dtype=torch.long)  # rows up to and with each shard
        self._seen: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in what other processes have added, and note that the store is in use."""
        try:
            found = sorted(p for p in self.folder.glob(f"*{SUFFIX}") if p.name not in self._seen)
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
            print(f"passing over the unreadable feature file {path} ({error})")

    def _remember(self, names: Sequence[str], features: torch.Tensor) -> None:
        if len(names) != len(features):
            raise ValueError(f"{len(names)} names for {len(features)} features")
        like = self._shards[0] if self._shards else features
        if features.shape[1:] != like.shape[1:] or features.dtype != like.dtype:
            raise ValueError(f"{features.shape[1:]} {features.dtype} among {like.shape[1:]}")
        start = len(self)
        for row, name in enumerate(names, start):
            self._place.setdefault(name, row)
        self._shards.append(features)
        self._ends = torch.cat([self._ends, torch.tensor([start + len(features)])])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def missing(self, names: Sequence[str]) -> list[str]:
        """The names, each once, whose features are not here yet."""
        return [name for name in dict.fromkeys(names) if name not in self._place]

    def places(self, names: Sequence[str]) -> torch.Tensor:
        """(n,) rows, for :meth:`gather`, of names that are all here."""
        return torch.tensor([self._place[name] for name in names], dtype=torch.long)

    def gather(self, places: torch.Tensor) -> torch.Tensor:
        """Features (n, ...) of the rows (n,), read from the files that hold them."""
        if len(self._shards) == 1:
            return self._shards[0][places]
        shard = torch.bucketize(places, self._ends, right=True)  # (n,)
        out = self._shards[0].new_empty((len(places), *self._shards[0].shape[1:]))
        for i in shard.unique().tolist():
            here = shard == i
            start = int(self._ends[i]) - len(self._shards[i])
            out[here] = self._shards[i][places[here] - start]
        return out

    def rows(self, names: Sequence[str]) -> torch.Tensor:
        """Features (n, ...) of names that are all here."""
        return self.gather(self.places(names))

    def add(self, names: Sequence[str], features: torch.Tensor) -> None:
        """Keep features (n, ...) under their names, as one file."""
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
    """Outputs (B, ...) of at most ENCODE_BATCH images, computed at that batch size.

    Kernels differ with the batch size in the last bits. A full batch every time makes a feature
    the same whichever other images happened to be missing beside it.
    """
    missing = ENCODE_BATCH - len(images)
    padded = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
    found = model.encode_outputs(padded, outputs)
    return {name: found[name][: len(images)] for name in outputs}
