"""Checkpoints of methods of which one part, a head, belongs to the classes of the training."""

from __future__ import annotations

from pathlib import Path

from dassl.engine import TrainerBase
from dassl.engine.checkpoints import (
    check_metadata,
    checkpoint_file,
    load_strictly,
    read_checkpoint,
)

CLASSES = "classes of the head"  # in a checkpoint's metadata
MODEL = "prompt_learner"


def load_without_head(
    trainer: TrainerBase, directory: str | Path, epoch: int | None, head: str
) -> bool:
    """Load a checkpoint whose head is for other classes, all but the head.

    Args:
        head: what the names of the head's tensors start with.

    Returns:
        False, and nothing is loaded, if the head is for the classes of the trainer.

    Raises:
        UserError: something else in the checkpoint does not fit.
    """
    path = checkpoint_file(Path(directory) / MODEL, epoch)
    weights, saved, _ = read_checkpoint(path)
    expected = trainer.checkpoint_metadata()
    if saved.get(CLASSES) == expected[CLASSES]:
        return False
    (model,) = trainer.models()
    own = {key: value for key, value in model.state_dict().items() if key.startswith(head)}
    shared = {key: v for key, v in weights.items() if not key.startswith(head)}
    check_metadata({**saved, CLASSES: expected[CLASSES]}, expected, path)
    load_strictly(model, {**shared, **own}, path)
    print(f"Loading {path} without its head, which is for other classes")
    return True
