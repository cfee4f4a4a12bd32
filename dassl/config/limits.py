"""Numbers that no run can use, found before anything is loaded."""

from __future__ import annotations

from dassl.utils import UserError

from .node import CfgNode

LEAST = {
    "SEED": -1,
    "DATASET.NUM_SHOTS": -1,
    "DATASET.QUESTIONS.CANDIDATES": 1,
    "DATASET.QUESTIONS.NUM_VAL": 0,
    "DATASET.QUESTIONS.NUM_TEST": -1,
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 1,
    "DATALOADER.TEST.BATCH_SIZE": 1,
    "OPTIM.LR": 0,
    "OPTIM.WEIGHT_DECAY": 0,
    "OPTIM.MOMENTUM": 0,
    "OPTIM.MAX_EPOCH": 0,
    "TRAIN.CHECKPOINT_FREQ": 0,
    "TRAIN.PRINT_FREQ": 1,
    "FEATURES.VIEWS": 0,
}
MOST_SEED = 2**63 - 1  # what torch's generators take


def check_limits(cfg: CfgNode) -> None:
    """Refuse numbers that are out of range, in a message that names the key and the range."""
    for key, least in LEAST.items():
        value = cfg
        for part in key.split("."):
            value = value[part]
        if not value >= least:  # also refuses NaN
            raise UserError(f"{key} takes a number of {least} or more; got {value}")
    if cfg.SEED > MOST_SEED:
        raise UserError(f"SEED takes a number of at most {MOST_SEED}; got {cfg.SEED}")
    if cfg.DATASET.NUM_SHOTS == 0:
        raise UserError(
            "DATASET.NUM_SHOTS takes the number of training images per class, or -1 for all; got "
            "0. Without training: --eval-only"
        )
