"""Tasks, datasets, transforms and loaders; imported on first use."""

from typing import TYPE_CHECKING

from dassl.utils.lazy import lazy_imports

if TYPE_CHECKING:
    from .data_manager import DataManager, EpochDataLoader, build_data_loader
    from .datasets import DatasetBase, Datum, build_dataset, dataset_class
    from .identity import SPLITS, DataIdentity, first_difference, identify
    from .registry import DATASET_REGISTRY
    from .samplers import build_sampler
    from .tasks import Task, TaskSpace
    from .transforms import build_transform, transform_signature
    from .wrapper import DatasetWrapper, view_seed

__all__ = [
    "DATASET_REGISTRY",
    "SPLITS",
    "DataIdentity",
    "DataManager",
    "DatasetBase",
    "DatasetWrapper",
    "Datum",
    "EpochDataLoader",
    "Task",
    "TaskSpace",
    "build_data_loader",
    "build_dataset",
    "build_sampler",
    "build_transform",
    "dataset_class",
    "first_difference",
    "identify",
    "transform_signature",
    "view_seed",
]

__getattr__, __dir__ = lazy_imports(__name__)
