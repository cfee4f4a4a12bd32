"""Loaders whose batches have stored image features in place of images, or beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import torch

from clip.features import DigestCache, FeatureStore, feature_key, store_root
from clip.text import index_rows
from dassl.data import EpochDataLoader, transform_signature
from dassl.data.sharding import columns_of
from dassl.data.wrapper import read_bytes
from dassl.utils import UserError, distributed

from .feature_encoder import FeatureEncoder
from .precision import precision_name

RESIDENT_SHARE = 0.25  # of a GPU's free memory that the features of an epoch may use
ONE_PIECE = 64 * 2**20  # bytes of an epoch's features that are read at once on a CPU
CHECK_EVERY = 1.0  # seconds; epochs that are shorter do not all look for changed images


class FeatureLoader:
    """The batches of a loader with the outputs of the image tower in place of ``img``.

    ``feat`` (B, e) is the global feature; other outputs have their own names. Order, batches and
    augmentations are those of the wrapped loader. Missing features are computed at the start of
    an epoch. If an epoch's features fit, they are read at once, and on a GPU moved there, so that
    a step copies nothing.

    Args:
        encoder: computes missing features.
        loader: yields the images.
        is_train: whether its images are augmented.
    """

    def __init__(self, encoder: FeatureEncoder, loader: EpochDataLoader, is_train: bool):
        self.encoder, self.loader, self.epoch = encoder, loader, 0
        self.options = encoder.options
        self.views = self.options.VIEWS if is_train else 0
        self.keys = {
            output: feature_key(
                encoder.clip,
                transform_signature(encoder.cfg, is_train),
                precision_name(encoder.precision, encoder.device),
                output,
                self.options.DTYPE,
            )
            for output in encoder.outputs
        }
        self._columns = columns_of(loader.dataset.data_source)
        self._checked, self._view, self._features = float("-inf"), -1, None

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """Use the order and the augmentations of an epoch."""
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def size(self, epochs: int) -> tuple[int, int]:
        """The number of features of that many epochs, and their bytes."""
        views = min(self.views or epochs, epochs) if self.loader.dataset.draws else 1
        count = views * len(self.loader.dataset)
        return count, count * self.encoder.bytes_per_image

    def paths_to_read(self) -> list[str]:
        """Paths of the images whose features are not stored yet."""
        items, names = self.loader.dataset.data_source, self._names()
        missing = {name for store in self._stores().values() for name in store.missing(names)}
        return [item.impath for item, name in zip(items, names, strict=True) if name in missing]

    def __iter__(self) -> Iterator[dict]:
        view = self._view_epoch() if self.loader.dataset.draws else 0
        old = view != self._view or time.monotonic() - self._checked > CHECK_EVERY
        if self._features is None or old or distributed.world_size() > 1:
            self._features = None  # before the next ones take memory
            self._features = self._read(*self._complete())
            self._checked, self._view = time.monotonic(), view
        order = [torch.tensor(batch) for batch in self.loader.batches]
        yield from self._batches(self._features, order)

    def _complete(self) -> tuple[dict[str, FeatureStore], dict[str, torch.Tensor]]:
        """The complete stores of this epoch, and each image's row in them."""
        stores = self._stores()
        names = self._names()
        for _ in range(3):  # images may change, or files be lost, in the meantime
            if not distributed.anywhere(_is_missing(stores, names)):
                break
            self.encoder.complete(stores, names, self.loader)
            names = self._names()
        if _is_missing(stores, names):
            raise UserError(
                "the image features cannot be completed: images change while they are read, or "
                f"files of {next(iter(stores.values())).root} are lost; start again"
            )
        return stores, {output: store.indices(names) for output, store in stores.items()}

    def _read(self, stores: dict, rows: dict) -> dict[str, Callable]:
        """Functions from indices of images (n,) to their features, by the key of a batch."""
        found: dict[str, Callable] = {}
        for output, store in stores.items():
            if self._in_one_piece(len(rows[output])):
                features = store.gather(rows[output]).to(self.encoder.device)
                found[field_of(output)] = partial(index_rows, features)
            else:
                found[field_of(output)] = partial(_gather, store, rows[output])
        return found

    def _batches(self, features: dict[str, Callable], order: list) -> Iterator[dict]:
        """Batches of stored features, read by the functions of :meth:`_read`."""
        items, sizes = self.loader.dataset.data_source, [len(index) for index in order]
        every = torch.cat(order)
        columns = {name: values[every] for name, values in self._columns.items()}
        columns["index"] = every
        if self.encoder.device.type == "cuda":  # copies from there are asynchronous
            columns = {name: values.pin_memory() for name, values in columns.items()}
        columns = {name: values.split(sizes) for name, values in columns.items()}
        for step, index in enumerate(order):
            batch = {name: values[step] for name, values in columns.items()}
            batch |= {name: read(batch["index"]) for name, read in features.items()}
            yield {**batch, "impath": [items[i].impath for i in index.tolist()]}

    def _in_one_piece(self, images: int) -> bool:
        """Whether the features of that many images are read, and moved to the device, at once."""
        limit: float = ONE_PIECE
        if self.encoder.device.type == "cuda":
            limit = RESIDENT_SHARE * torch.cuda.mem_get_info(self.encoder.device)[0]
        return images * self.encoder.bytes_per_image < limit

    def _view_epoch(self) -> int:
        """The epoch whose augmentations are used; they repeat after FEATURES.VIEWS epochs."""
        return self.epoch % self.views if self.views else self.epoch

    def _stores(self) -> dict[str, FeatureStore]:
        view = "plain"
        if self.loader.dataset.draws:
            self.loader.dataset.set_epoch(self._view_epoch())
            view = f"{self.encoder.cfg.SEED}-{self._view_epoch()}"
        stores = {
            output: _open_store(
                self.options.DIR, tuple(sorted(key.items())), view, _label(self.encoder.clip)
            )
            for output, key in self.keys.items()
        }
        for store in stores.values():
            store.refresh()
        return stores

    def _names(self) -> list[str]:
        """The digest of each image's content."""
        paths = [item.impath for item in self.loader.dataset.data_source]
        return _open_digests(self.options.DIR).of(paths)


class TeacherLoader(FeatureLoader):
    """The batches of a loader, with stored features of their images as "teacher" (B, e)."""

    def __iter__(self) -> Iterator[dict]:
        stores, rows = self._complete()
        for batch in self.loader:
            features = stores["global"].gather(rows["global"][batch["index"]])
            yield {**batch, "teacher": features}


def field_of(output: str) -> str:
    """The key in a batch of an output of the image tower."""
    return "feat" if output == "global" else output


@lru_cache(maxsize=64)
def _open_store(folder: str, key: tuple, view: str, label: str) -> FeatureStore:
    """One store per process, key and view, shared by the runs of a sweep."""
    return FeatureStore(folder or None, dict(key), view, label)


@lru_cache(maxsize=8)
def _open_digests(folder: str) -> DigestCache:
    return DigestCache(store_root(folder), read=lambda path: read_bytes(path)[1])


def _gather(store: FeatureStore, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return store.gather(rows[index])


def _is_missing(stores: dict[str, FeatureStore], names: list[str]) -> bool:
    return any(store.missing(names) for store in stores.values())


def _label(clip_model) -> str:
    """The name of the backbone, or of its weight file without the folder."""
    path = Path(clip_model.name)
    return path.name if path.suffix else clip_model.name
