"""Finds broken test images before a training; after it, says how to repeat only the test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dassl.data.wrapper import DatasetWrapper, decode, read_bytes
from dassl.utils import UserError

if TYPE_CHECKING:
    from .base import TrainerBase
    from .simple_trainer import SimpleTrainer


def check_test_images(trainer: TrainerBase) -> None:
    """Read the header of every image that a run evaluates on, except those with stored features.

    It does not decode them: 20,000 headers take a second, and a file that breaks off in its middle
    is found only in the evaluation.

    Raises:
        UserError: a file is missing or no image.
    """
    paths = {path: None for part in trainer.task_trainers for path in _evaluated(part)}
    for path in paths:
        try:
            with Image.open(path):
                pass
        except Exception:  # a broken file can make PIL raise nearly anything
            decode(read_bytes(path)[0], path)  # whose errors say what to do


def _evaluated(trainer: SimpleTrainer) -> Iterable[str]:
    """Paths of the images of a trainer's evaluations."""
    test = [] if trainer.cfg.TEST.NO_TEST else [trainer.cfg.TEST.SPLIT]
    for split in {*test, *(["val"] if trainer.validation_selected() else [])}:
        loader = trainer.loader_of(split)
        if hasattr(loader, "paths_to_read"):  # with stored features
            yield from loader.paths_to_read()
        elif isinstance(getattr(loader, "dataset", None), DatasetWrapper):
            yield from (item.impath for item in loader.dataset.data_source)


@contextlib.contextmanager
def hint_to_test_again(trainer: TrainerBase) -> Iterator[None]:
    """Add to the errors of a user after the last epoch how to test without training again."""
    try:
        yield
    except UserError as error:
        if advice := _advice(trainer):
            raise UserError(f"{error}; {advice}") from None
        raise


def _advice(trainer: TrainerBase) -> str:
    """How to test a finished training; "" if a task is not trained to its end."""
    for part in trainer.task_trainers:
        file = f"model.pth.tar-{part.max_epoch}"
        names = part.get_model_names()
        if not names or not all((part.output_dir / name / file).is_file() for name in names):
            return ""
    first = trainer.task_trainers[0]
    text = "the training is complete: once this is put right, the same command only tests"
    if first.keeps_best():  # --load-epoch would take another model
        return text
    return (
        f"{text}; if the data change by that, evaluate with --eval-only --model-dir "
        f"{Path(trainer.cfg.OUTPUT_DIR)} --load-epoch {first.max_epoch} and another --output-dir"
    )
