"""Two small datasets in folders, and a suite of them."""

from dassl.config import get_cfg_default
from dassl.data import build_dataset
from datasets._core.base import FewShotDataset, TaskGroup


class Pets(FewShotDataset):
    dataset_dir = "pets"
    task_name = "kind of pet"
    templates = ("a photo of a {}, a type of pet.",)
    renames = {"Kitty": "cat"}
    ignored = ("BACKGROUND",)


class Plants(FewShotDataset):
    dataset_dir = "plants"
    image_dir = "raw/all"
    task_name = "plant"
    metric = "mean_acc"
    group = "green"


class Both(TaskGroup):
    members = (Pets, Plants)


def fill(folder, classes):
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (folder / name / f"{i:02d}.jpg").write_bytes(b"not looked at")


def paths(items):
    return [item.impath for item in items]


def in_part(items, label):
    return sum(item.label == label for item in items)


def load(name, root, **options):
    """The dataset ``name`` under ``root``; options are keys of DATASET."""
    cfg = get_cfg_default()
    cfg.merge_from_dict({"SEED": 1, "DATASET": {"NAME": name, "ROOT": str(root), **options}})
    return build_dataset(cfg)


def counts(dataset):
    return [len(part) for part in (dataset.train_x, dataset.val, dataset.test)]
