"""Helpers of the tests of methods on frozen image features."""

import torch

from tests.conftest import TASKS
from tests.reference.metrics import per_task_metrics

E = 64
ONE = ("DATASET.SUBSAMPLE_TASKS", "task0")  # three classes


def drawn(n, seed=0):
    return torch.randn(n, E, generator=torch.Generator().manual_seed(seed))


def templates(trainer, t=0):
    """Text features (C, e) of the toy task's one template."""
    phrases = [TASKS[t].templates[0].format(n.replace("_", " ")) for n in TASKS[t].classnames]
    return trainer.clip.text_tower.encode_text(phrases).double()


def training(trainer):
    features, label, _ = trainer.split_features("train")
    return features["global"], label


def judged(rows, label, t):
    """The toy task's own metric of logits (B, C)."""
    sizes, metrics = [len(TASKS[t].classnames)], [TASKS[t].metric]
    tasks = [0] * len(rows)
    return per_task_metrics(rows.tolist(), label.tolist(), tasks, sizes, metrics)[0]
