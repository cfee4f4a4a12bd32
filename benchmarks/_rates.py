"""Shared by the searches for learning rates: runs on chosen data, and a table."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable

import train
from dassl.config import CfgNode
from dassl.data.datasets import DatasetBase
from dassl.engine import TRAINER_REGISTRY, EachTask
from dassl.utils import set_random_seed


def outcome_of(words: list[str], seed: int, data: Callable[[CfgNode], DatasetBase]) -> dict:
    """The results of a run of train.py that trains and tests on other data than it would.

    Args:
        words: train.py's command line.
        data: makes the dataset from the configuration.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        words = [*words, "SEED", str(seed), "OUTPUT_DIR", folder]
        cfg = train.setup_cfg(train.parse_args(words))
        dataset, cls = data(cfg), TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        set_random_seed(seed)
        each = cls.suite == "each" and len(dataset.space.tasks) > 1
        trainer = EachTask(cfg, cls, dataset) if each else cls(cfg, dataset=dataset)
        trainer.train()
    return trainer.results()


def print_row(cells: list, percents: list[float] = (), head: bool = False) -> None:
    """A row of a Markdown table: cells as they are, then percentages."""
    cells = [*cells, *(f"{value:.2f}" for value in percents)]
    line = "".join(f"| {cell} " for cell in cells) + "|"
    print(f"{line}\n{'|---' * len(cells)}|" if head else line, flush=True)
