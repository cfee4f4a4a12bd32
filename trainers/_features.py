"""Loaders that give stored image features in place of images (``FEATURES.MODE``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.utils.data import DataLoader, Subset

from clip.features import ENCODE_BATCH, FeatureStore, encode_fixed, feature_key
from dassl.data import DatasetWrapper, EpochDataLoader, build_data_loader, transform_signature
from dassl.data.wrapper import read_bytes
from dassl.utils import UserError

MODES = ("off", "test", "full")
STORED = {"global"}  # outputs of the image tower that the store keeps

Features = dict[str, torch.Tensor]  # outputs of the image tower by name, un-normalised


def cached_loaders(trainer) -> None:
    """Put stored features behind the loaders of a trainer, as FEATURES.MODE says."""
    mode = trainer.cfg.FEATURES.MODE
    if mode not in MODES:
        raise UserError(f"FEATURES.MODE must be one of {', '.join(MODES)}; got {mode!r}")
    if mode == "off":
        return
    if missing := sorted(trainer.image_outputs - STORED):
        print(
            f"FEATURES.MODE {mode}: {type(trainer).__name__} reads {', '.join(missing)} features, "
            "which are not stored: they are computed from the images in every epoch"
        )
        return
    trainer.val_loader = _with_features(trainer, trainer.val_loader, is_train=False)
    trainer.test_loader = _with_features(trainer, trainer.test_loader, is_train=False)
    if mode == "full":
        trainer.train_loader_x = _with_features(trainer, trainer.train_loader_x, is_train=True)


def training_loader(trainer, augmented: bool = False):
    """A loader of every training image once and in order, as at test time or augmented."""
    items, batch_size = trainer.dm.dataset.train_x, trainer.cfg.DATALOADER.TEST.BATCH_SIZE

    def wrapper(cfg, data_source, transform, is_train):
        return DatasetWrapper(cfg, data_source, transform, is_train=augmented)

    loader = build_data_loader(
        trainer.cfg,
        data_source=items,
        batch_size=batch_size,
        is_train=False,  # keeps the last batch
        dataset_wrapper=wrapper,
    )
    full = trainer.cfg.FEATURES.MODE == "full" and trainer.image_outputs <= STORED
    return _with_features(trainer, loader, is_train=augmented) if full else loader


def _with_features(trainer, loader, is_train: bool):
    if loader is None:
        return None
    key = feature_key(
        trainer.clip, transform_signature(trainer.cfg, is_train), str(trainer.clip.dtype)
    )
    store = _open_store(trainer.cfg.FEATURES.DIR, tuple(sorted(key.items())))
    views = trainer.cfg.FEATURES.VIEWS if is_train else 0
    return FeatureLoader(loader, trainer.clip, trainer.device, store, views)


@lru_cache(maxsize=8)
def _open_store(folder: str, key: tuple) -> FeatureStore:
    """One store per process and key: the runs of a sweep share it."""
    return FeatureStore(folder or None, dict(key))


class FeatureLoader:
    """The batches of a loader with ``feat`` (B, e) in place of ``img``.

    Order, batches and augmentations are the wrapped loader's; what the store lacks of a pass is
    computed at its start.

    Args:
        views: augmented views kept per training image, used in turn; 0: one per epoch.
    """

    def __init__(self, loader: EpochDataLoader, clip_model, device, store, views: int = 0):
        self.loader, self.clip, self.device = loader, clip_model, device
        self.store, self.views = store, views
        self.epoch = 0
        items = loader.dataset.data_source
        self._fields = {
            name: torch.tensor([getattr(item, name) for item in items])
            for name in ("label", "task", "domain")
        }

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """Go to the order and the augmentations of an epoch."""
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict]:
        features = self._features()  # (N, e)
        items = self.loader.dataset.data_source
        for places in self.loader.batch_sampler:
            index = torch.tensor(places)
            yield {
                "feat": features[index],
                **{name: values[index] for name, values in self._fields.items()},
                "index": index,
                "impath": [items[i].impath for i in places],
            }

    def _features(self) -> torch.Tensor:
        dataset = self.loader.dataset
        view = ""
        if dataset.draws:
            number = self.epoch % self.views if self.views else self.epoch
            dataset.set_epoch(number)
            view = f"-{dataset.cfg.SEED}-{number}"
        names = [digest_of(item.impath) + view for item in dataset.data_source]
        missing = self.store.missing(names)
        if missing:
            place = {name: i for i, name in reversed(list(enumerate(names)))}
            self.store.add(missing, self._encode(Subset(dataset, [place[n] for n in missing])))
        return self.store.rows(names)

    def _encode(self, images: Subset) -> torch.Tensor:
        workers = min(self.loader.num_workers, len(images) // ENCODE_BATCH)
        # without a generator of its own it would draw from the global one, and a run whose
        # features are stored would go on with other numbers than one that computes them
        own = torch.Generator()
        batches = DataLoader(images, ENCODE_BATCH, num_workers=workers, generator=own)
        dtype = self.clip.dtype
        return torch.cat(
            [
                encode_fixed(self.clip, batch["img"].to(self.device, dtype)).cpu()
                for batch in batches
            ]
        )


def digest_of(path: str) -> str:
    """Content digest of an image; read again only if size, time or inode have changed."""
    try:
        stat = os.stat(path)
    except OSError:
        return read_bytes(path)[1]  # fails, with the message for a missing image
    return _digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=1_000_000)
def _digest(path: str, size: int, mtime_ns: int, inode: int) -> str:
    return read_bytes(path)[1]
