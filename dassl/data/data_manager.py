"""The data loaders of a run, built from its configuration."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from dassl.utils import UserError, choose_device, distributed

from .datasets import DatasetBase, Datum, build_dataset
from .samplers import build_sampler, stable_seed
from .sharding import ShareOfBatches, columns_of
from .task_samplers import EQUAL, ROUND_ROBIN, TEMPERATURE, RoundRobinBatches, TaskSampler
from .tasks import TaskSpace
from .wrapper import DatasetWrapper


class EpochDataLoader(DataLoader):
    """A data loader whose order and augmentations depend on the epoch."""

    @property
    def batches(self) -> Sampler[list[int]]:
        """Image indices of every batch."""
        return self.batch_sampler

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, before iterating. Workers stay alive."""
        for part in (self.batches, getattr(self.batches, "sampler", None), self.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)


class SharedDataLoader(EpochDataLoader):
    """The loader of one process of a distributed run.

    It loads its share of the images of a batch, and label, task, domain, index and impath of all
    images of the batch.

    Args:
        batches: image indices of every batch of the run.
    """

    def __init__(self, dataset: Dataset, batches: Sampler[list[int]], **options):
        self._whole = batches
        super().__init__(dataset, batch_sampler=ShareOfBatches(batches), **options)

    @property
    def batches(self) -> Sampler[list[int]]:
        return self._whole

    def __iter__(self) -> Iterator[dict]:
        items = self.dataset.data_source
        columns = columns_of(items)
        for share, places in zip(super().__iter__(), self._whole, strict=True):
            index = torch.tensor(places)
            yield {
                "img": share["img"],
                **{name: values[index] for name, values in columns.items()},
                "index": index,
                "impath": [items[i].impath for i in places],
            }


def build_data_loader(
    cfg,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Callable | None = None,
    is_train: bool = True,
    dataset_wrapper: Callable[..., Dataset] | None = None,
) -> EpochDataLoader:
    """A loader over ``data_source``, with Dassl's arguments.

    In training an incomplete last batch is dropped, unless it is the only one. There are never
    more workers than batches or than processor cores.

    Args:
        sampler_type: a choice of DATALOADER.TRAIN_X.SAMPLER.
        n_domain, n_ins: Dassl's; not used, since no sampler goes by domain.
        tfm: the transform; by default that of ``cfg.INPUT``.
        dataset_wrapper: used instead of :class:`DatasetWrapper`, with its arguments.

    Raises:
        UserError: no images, or a batch size below 1.
    """
    if not data_source:
        raise UserError(
            f"there are no images for {'training' if is_train else 'evaluation'}; "
            "check DATASET.NUM_SHOTS, DATASET.SPLIT and the data folder"
        )
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1; got {batch_size}")
    workers = min(cfg.DATALOADER.NUM_WORKERS, -(-len(data_source) // batch_size), _cores())
    wrapper = dataset_wrapper or DatasetWrapper
    dataset = wrapper(cfg, data_source, transform=tfm, is_train=is_train)
    options = {
        "num_workers": workers,
        "pin_memory": choose_device(cfg.USE_CUDA) == "cuda",
        "persistent_workers": workers > 0,
        # without one, iterating advances the global generator
        "generator": torch.Generator().manual_seed(stable_seed(cfg.SEED, "workers")),
    }
    drop_last = is_train and len(data_source) >= batch_size
    batches = _build_batches(cfg, sampler_type, data_source, batch_size, drop_last)
    if distributed.world_size() > 1:
        return SharedDataLoader(dataset, batches, **options)
    return EpochDataLoader(dataset, batch_sampler=batches, **options)


def _build_batches(
    cfg, sampler_type: str, items: Sequence[Datum], batch_size: int, drop_last: bool
) -> Sampler[list[int]]:
    """The image indices of every batch, by the sampler that ``sampler_type`` names."""
    options = cfg.DATALOADER.TRAIN_X
    if sampler_type == ROUND_ROBIN:
        return RoundRobinBatches(items, batch_size, cfg.SEED, options.EPOCH)
    if sampler_type in (EQUAL, TEMPERATURE):
        temperature = math.inf if sampler_type == EQUAL else options.TEMPERATURE
        sampler = TaskSampler(items, cfg.SEED, temperature, options.EPOCH)
        drop_last = drop_last and len(sampler) >= batch_size
    else:
        sampler = build_sampler(sampler_type, items, cfg.SEED)
    return BatchSampler(sampler, batch_size, drop_last)


def _cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class DataManager:
    """The dataset of a run and its loaders.

    ``train_loader_x``, ``val_loader`` and ``test_loader`` are None if the dataset has no such
    images; ``train_loader_u`` is always None.

    Args:
        custom_tfm_train: overrides the training transform of ``cfg.INPUT``.
        custom_tfm_test: overrides its test transform.
        dataset_wrapper: replaces :class:`DatasetWrapper`, with the same arguments.
        dataset: overrides ``cfg.DATASET.NAME``.
    """

    def __init__(
        self,
        cfg,
        custom_tfm_train: Callable | None = None,
        custom_tfm_test: Callable | None = None,
        dataset_wrapper: Callable[..., Dataset] | None = None,
        dataset: DatasetBase | None = None,
    ):
        self.dataset = build_dataset(cfg) if dataset is None else dataset
        loading = cfg.DATALOADER
        if loading.OLD_DATA_PATH and loading.NEW_DATA_PATH:
            self.dataset.relocate(loading.OLD_DATA_PATH, loading.NEW_DATA_PATH)

        def loader(items, options, tfm, is_train):
            if not items:
                return None
            return build_data_loader(
                cfg,
                sampler_type=options.SAMPLER,
                data_source=items,
                batch_size=options.BATCH_SIZE,
                tfm=tfm,
                is_train=is_train,
                dataset_wrapper=dataset_wrapper,
            )

        parts = self.dataset
        self.train_loader_x = loader(parts.train_x, loading.TRAIN_X, custom_tfm_train, True)
        self.train_loader_u = None
        self.val_loader = loader(parts.val, loading.TEST, custom_tfm_test, False)
        self.test_loader = loader(parts.test, loading.TEST, custom_tfm_test, False)
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        if cfg.VERBOSE:
            print(self.summary(cfg.DATASET.NAME))

    @property
    def space(self) -> TaskSpace:
        """The tasks and their logit columns."""
        return self.dataset.space

    @property
    def num_classes(self) -> int:
        """C, the number of classes of all tasks."""
        return self.dataset.num_classes

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name by column."""
        return self.dataset.lab2cname

    def summary(self, name: str = "") -> str:
        """A table of the numbers of tasks, classes and images."""
        parts = self.dataset
        rows = {
            "Dataset": name or type(parts).__name__,
            "# tasks": len(self.space.tasks),
            "# classes": f"{self.num_classes:,}",
            "# train_x": f"{len(parts.train_x or ()):,}",
            "# val": f"{len(parts.val or ()):,}",
            "# test": f"{len(parts.test or ()):,}",
        }
        if parts.split:
            rows["Split"] = f"{parts.split} ({parts.identity.draw[:12]})"
        return "\n".join(f"{key:<10} {value}" for key, value in rows.items())
