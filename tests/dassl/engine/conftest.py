"""The fixture that builds a trainer on one toy task."""

import pytest

from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed
from tests.conftest import SMALL
from tests.dassl.engine._trainers import Each, Plain


@pytest.fixture
def make(toy, tmp_path, register_trainer):
    """``make(cls, KEY, VALUE, ..., output=)`` registers and builds a trainer on one toy task."""
    for cls in (Plain, Each):
        register_trainer(cls)

    def go(cls=Plain, *opts, output=tmp_path / "run", task="task0", before=()):
        cfg = get_cfg_default()
        size = ("INPUT.SIZE", "(32, 32)", "INPUT.INTERPOLATION", "bilinear")
        words = [*SMALL, *size, "INPUT.TRANSFORMS", "()", "SEED", "1", "VERBOSE", "False"]
        words += ["DATASET.NAME", "Toy", "DATASET.SUBSAMPLE_TASKS", task]
        words += ["OUTPUT_DIR", str(output), "TRAINER.NAME", cls.__name__, *map(str, opts)]
        cfg.merge_from_list(words)
        cfg.freeze()
        set_random_seed(1)
        if cls.__name__ not in TRAINER_REGISTRY:
            register_trainer(cls)  # a trainer of one test
        return build_trainer(cfg)

    return go
