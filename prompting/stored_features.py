"""Chooses the loaders of a run that yield stored image features (``FEATURES.MODE``)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from clip.features import store_root
from dassl.data import DatasetWrapper, Datum, EpochDataLoader, build_data_loader
from dassl.utils import size_in_words

from .feature_encoder import FeatureEncoder
from .feature_loader import FeatureLoader, TeacherLoader


class Storable(StrEnum):
    """Which image features of a method can be stored.

    ALL: of every image, in its place, since the image tower is frozen.
    TEACHER: the frozen tower's of training images, beside them; the method's own tower learns.
    NONE: its tower learns, and it does not use those of the frozen one.
    """

    ALL = "model"
    TEACHER = "teacher"
    NONE = "none"


class Loaders(NamedTuple):
    """The loaders of a run; None where a split has no images."""

    train: EpochDataLoader | FeatureLoader | None
    val: EpochDataLoader | FeatureLoader | None
    test: EpochDataLoader | FeatureLoader | None


def with_stored_features(
    encoder: FeatureEncoder, loaders: Loaders, epochs: int, storable: Storable = Storable.ALL
) -> Loaders:
    """The loaders with stored features, as FEATURES.MODE says.

    Args:
        epochs: of the training, for the size that is logged.
        storable: which features of the method can be stored.
    """
    cfg, mode = encoder.cfg, encoder.options.MODE
    teacher = storable == Storable.TEACHER
    if storable == Storable.NONE or mode == "off" or (teacher and mode != "full"):
        return loaders
    if teacher:
        stored = loaders._replace(train=_with_features(encoder, loaders.train, True, TeacherLoader))
    else:
        stored = Loaders(
            _with_features(encoder, loaders.train, True) if mode == "full" else loaders.train,
            _with_features(encoder, loaders.val, False),
            _with_features(encoder, loaders.test, False),
        )
    if cfg.VERBOSE:
        _announce(encoder, stored, epochs)
    return stored


def training_loader(encoder: FeatureEncoder, items: list[Datum], augmented: bool = False):
    """A loader of every training image once and in order, as in testing or augmented."""
    cfg = encoder.cfg

    def wrapper(cfg, data_source, transform, is_train):
        return DatasetWrapper(cfg, data_source, transform, is_train=augmented)

    loader = build_data_loader(
        cfg,
        data_source=items,
        batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
        is_train=False,  # do not drop the last, smaller batch
        dataset_wrapper=wrapper,
    )
    return _with_features(encoder, loader, augmented) if cfg.FEATURES.MODE == "full" else loader


def _with_features(encoder: FeatureEncoder, loader, is_train: bool, kind: type | None = None):
    return None if loader is None else (kind or FeatureLoader)(encoder, loader, is_train)


def _announce(encoder: FeatureEncoder, stored: Loaders, epochs: int) -> None:
    """Log, before the first image is read, how much the features of the run will occupy."""
    cfg = encoder.cfg
    loaders = {
        "training": stored.train,
        "validation": stored.val if cfg.TEST.FINAL_MODEL == "best_val" else None,
        "test": stored.test,
    }
    sizes = {
        kind: loader.size(epochs if kind == "training" else 1)
        for kind, loader in loaders.items()
        if isinstance(loader, FeatureLoader)
    }
    total = sum(size for _, size in sizes.values())
    parts = ", ".join(f"{count:,} of {kind} images" for kind, (count, _) in sizes.items())
    root = store_root(cfg.FEATURES.DIR)
    print(f"Image features: at most {size_in_words(total)} in {root}: {parts}")
    if total > cfg.FEATURES.LIMIT_GB * 1e9:
        print(
            "This exceeds FEATURES.LIMIT_GB: the least recently used features will be deleted; "
            "raise the limit, or store less with FEATURES.VIEWS or FEATURES.DTYPE fp16"
        )
