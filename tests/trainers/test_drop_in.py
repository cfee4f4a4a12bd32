"""A fork's trainer file, dropped into ``trainers/`` as it is."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

import train
import trainers
from clip import backbones
from clip.tiny import Recipe
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import UserError, import_all, load_checkpoint
from tests.conftest import toy_args

INPUT = ("INPUT.SIZE", "(32, 32)", "INPUT.INTERPOLATION", "bilinear")
INPUT += ("INPUT.PIXEL_MEAN", "[0.3, 0.3, 0.3]", "INPUT.PIXEL_STD", "[0.35, 0.35, 0.35]")
ONE = ("DATASET.SUBSAMPLE_TASKS", "task0", *INPUT)


@pytest.fixture
def forked(toy, tmp_path, monkeypatch):
    """The file lies beside the other methods; ``forked(*opts)`` gives arguments of a run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # a tiny of two steps
    monkeypatch.setattr("clip.tiny.cache.Recipe", lambda: Recipe(steps=2, images=16, captions=8))
    backbones._cached.cache_clear()
    monkeypatch.setattr(
        trainers, "__path__", [*trainers.__path__, str(Path(__file__).parent / "fork")]
    )
    import_all(trainers)

    def args(*opts, output="run", flags=(), trainer="Forked"):
        parsed = toy_args(trainer, *opts, output=tmp_path / output, flags=flags)
        parsed.backbone = "tiny"
        return parsed

    yield args
    TRAINER_REGISTRY._classes.pop("Forked")
    sys.modules.pop("trainers.forked")
    backbones._cached.cache_clear()


def test_it_trains_steps_once_and_is_recorded(forked, tmp_path, monkeypatch):
    steps = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: (steps.append(1), step(self, *a))[1]
    )
    content = train.main(forked(*ONE, "OPTIM.MAX_EPOCH", 3, "DATALOADER.TRAIN_X.BATCH_SIZE", 4))
    assert len(steps) == 3 * 3  # 12 images, 3 epochs
    assert content["status"] == "complete" and content["protocol"]["trainer"] == "Forked"
    assert content["tasks"][0]["total"] == 9
    assert content["trainable"]["parameters"] == 4 * 64
    log = (tmp_path / "run" / "log.txt").read_text()
    rates = [line.rsplit("lr ", 1)[1] for line in log.splitlines() if line.startswith("epoch [")]
    assert rates == ["2.000000e-03", "1.500000e-03", "5.000000e-04"]  # a cosine over 3 epochs
    assert "acc " in log
    state = load_checkpoint(tmp_path / "run" / "prompt_learner" / "model.pth.tar-3")
    assert set(state["state_dict"]) == {"ctx", "token_prefix", "token_suffix"}


def test_its_own_load_model_is_used_and_its_logits_are_coops(forked, tmp_path, close):
    train.main(forked(*ONE))
    flags = ["--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2"]
    content = train.main(forked(*ONE, output="eval", flags=flags))
    trained = json.loads((tmp_path / "run" / "results.json").read_text())
    assert content["tasks"] == trained["tasks"]
    theirs = build_trainer(train.setup_cfg(forked(*ONE, "VERBOSE", "False")))
    theirs.load_model(tmp_path / "run", epoch=2)
    own = ("TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.PREC", "fp32", "VERBOSE", "False")
    ours = build_trainer(train.setup_cfg(forked(*ONE, *own, trainer="CoOp")))
    ours.load_model(tmp_path / "run", epoch=2)  # by the token buffers, one of the released code
    images = torch.stack([item["img"] for item in ours.test_loader.dataset])
    with torch.no_grad():
        close(theirs.model_inference(images), ours.model_inference(images).double(), limit=2e-3)


def test_it_resumes(forked, tmp_path, monkeypatch):
    whole = train.main(forked(*ONE, output="whole"))
    cls = TRAINER_REGISTRY.get("Forked")
    first = cls.before_epoch

    def stop(self):
        if self.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(cls, "before_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train.main(forked(*ONE))
    monkeypatch.setattr(cls, "before_epoch", first)
    resumed = train.main(forked(*ONE))
    assert resumed["run"]["resumed"] and resumed["tasks"] == whole["tasks"]


def test_it_is_refused_on_a_suite(forked):
    with pytest.raises(UserError, match=r"Forked does not know tasks, but Toy has 3: choose one"):
        train.main(forked(*INPUT))


def test_its_name_and_line_are_listed(forked):
    line = r"^  Forked +CoOp once more, in a fork's own words\.$"
    assert re.search(line, train.listing(), re.MULTILINE)
