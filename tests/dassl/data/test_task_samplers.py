"""How many images of each task an epoch has, and in which order, under each sampler."""

from collections import Counter

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.config.defaults import TASK_SAMPLERS
from dassl.data import Datum, build_data_loader
from dassl.data import task_samplers as module
from dassl.data.task_samplers import RoundRobinBatches, TaskSampler, divide
from dassl.data.wrapper import DatasetWrapper

SIZES = (8, 2, 1)  # images of the three tasks
ITEMS = [Datum(f"{t}-{i}", task=t) for t, size in enumerate(SIZES) for i in range(size)]


def counts(indices):
    """The number of draws of each image, by task."""
    draws = Counter(indices)
    return [[draws[i] for i, item in enumerate(ITEMS) if item.task == t] for t in range(len(SIZES))]


@pytest.mark.parametrize(
    ("options", "per_task"),
    [
        ({}, [4, 4, 3]),  # 11 images: 3 2/3 of each task
        ({"length": "all"}, [8, 8, 8]),
        ({"temperature": 1}, [8, 2, 1]),  # the shares of images
        # square roots 2.83, 1.41 and 1 of 5.24; of 11 images: 5.94, 2.97 and 2.10
        ({"temperature": 2}, [6, 3, 2]),
        # 15: 8 of the largest task, whose share is 2.83 / 5.24, are 14.83 images
        ({"temperature": 2, "length": "all"}, [8, 4, 3]),
        ({"temperature": 1e-3}, [11, 0, 0]),  # the largest task alone; 8 ** 1000 would overflow
        ({"temperature": 1e-3, "length": "all"}, [8, 0, 0]),
    ],
)
def test_an_epoch_has_a_fixed_number_of_images_of_each_task(options, per_task):
    sampler = TaskSampler(ITEMS, seed=3, **options)
    assert list(sampler.images_per_epoch.values()) == per_task
    for epoch in range(3):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(drawn) == len(sampler) == sum(per_task)
        found = counts(drawn)
        assert [sum(task) for task in found] == per_task
        assert all(max(task) - min(task) <= 1 for task in found)  # all before any again


@pytest.mark.parametrize("make", [TaskSampler, lambda *args: RoundRobinBatches(ITEMS, 3, args[1])])
def test_an_epoch_is_a_function_of_seed_and_number(make):
    sampler, other = make(ITEMS, 3), make(ITEMS, 4)
    state = torch.get_rng_state()
    first = list(sampler)
    assert list(sampler) == first != list(other)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert torch.equal(state, torch.get_rng_state())


def test_the_tasks_take_turns_and_an_epoch_starts_with_the_next():
    batches = RoundRobinBatches(ITEMS, batch_size=4, seed=3)
    tasks = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        drawn = list(batches)
        assert len(drawn) == len(batches) == 2  # 11 images, 4 at a time
        for batch in drawn:
            assert len(batch) == len(set(batch))
            (task,) = {ITEMS[i].task for i in batch}
            assert len(batch) == min(4, SIZES[task])
            tasks.append(task)
    assert tasks == [0, 1, 2, 0, 1, 2]
    assert RoundRobinBatches(ITEMS[::-1], batch_size=4).turns == [0, 1]  # by number


def test_turns_until_every_image_is_drawn():
    batches = RoundRobinBatches(ITEMS, batch_size=4, seed=3, length="all")
    drawn = list(batches)
    assert [len(batch) for batch in drawn] == [4, 2, 1, 4, 2, 1]
    assert counts(i for batch in drawn for i in batch) == [[1] * 8, [2, 2], [2]]


def test_largest_remainders():
    assert divide(100, [0.07, 0.93]) == [7, 93]
    assert divide(10, [1 / 3, 1 / 3, 1 / 3]) == [4, 3, 3]
    assert divide(7, [0.5, 0.3, 0.2]) == [4, 2, 1]  # 3.5, 2.1, 1.4


class Numbers(DatasetWrapper):
    """Images of one number each: their index."""

    def __getitem__(self, index):
        item = self.data_source[index]
        return {"img": torch.tensor([index]), "task": item.task, "index": index}


@pytest.mark.parametrize("name", TASK_SAMPLERS)
def test_loaders_take_the_samplers_by_name(name):
    cfg = get_cfg_default()
    cfg.SEED, cfg.USE_CUDA = 1, False
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (8, 8), "bilinear"
    cfg.INPUT.PIXEL_MEAN = cfg.INPUT.PIXEL_STD = [0.5, 0.5, 0.5]
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.TRAIN_X.EPOCH = "all"
    assert name in (module.EQUAL, module.TEMPERATURE, module.ROUND_ROBIN)
    loader = build_data_loader(cfg, name, ITEMS, 5, dataset_wrapper=Numbers)
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader) == len(list(loader.batches))
        epochs.append([i for batch in batches for i in batch["index"].tolist()])
    assert epochs[0] != epochs[1]
    last = len(list(loader.batches)[-1])
    assert last == (1 if name == module.ROUND_ROBIN else 5)  # an incomplete batch is dropped
