"""Methods that a user adds: further losses, learning without SGD, errors, records of other runs."""

import json
import re

import pytest

from prompting.fitting import Fitting
from results.record import RunRecord
from tests.trainers._methods import options
from trainers._base import PromptTrainer
from trainers.coop import CoOp


class Named(CoOp):
    """CoOp with a second loss."""

    def compute_loss(self, output, batch, class_mask=None):
        losses = super().compute_loss(output, batch, class_mask)
        return {**losses, "pull": 0.25 * (self.model.prompter.prompts.ctx**2).mean()}


def test_the_log_shows_named_losses(run, tmp_path, register_trainer):
    register_trainer(Named)
    run("Named", *options(), "DATASET.SUBSAMPLE_TASKS", "task0")
    assert re.search(
        r"\tloss \d\.\d+ \(\d\.\d+\) pull 0\.000\d \(0\.000\d\)\tlr ",
        (tmp_path / "run" / "log.txt").read_text(),
    )


def test_loss_that_is_no_number_stops_the_run(run, tmp_path):
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf); try a smaller OPTIM.LR"):
        run("MTCoOp", *options(), "OPTIM.LR", 1e30, "OPTIM.MAX_EPOCH", 5)
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert content["status"] == "failed"
    assert content["run"]["error"].startswith("FloatingPointError: the loss is")


class Unfinished(PromptTrainer):
    """A method without a prompter."""

    KEY = "COOP"


def test_a_method_must_build_a_prompter(build, register_trainer):
    register_trainer(Unfinished)
    Unfinished.DEFAULTS = CoOp.DEFAULTS
    with pytest.raises(NotImplementedError, match="Unfinished must override build_prompter"):
        build("Unfinished", "DATASET.SUBSAMPLE_TASKS", "task0")


class Fitted(CoOp):
    """A method without SGD: its prompter learns from features at once."""

    def build_prompter(self, options, space, text):
        prompter = super().build_prompter(options, space, text)
        return prompter.requires_grad_(False)

    def build_fitting(self, options):
        return Fitting(fit=self.fit)

    def fit(self):
        features, label, task = self.split_features("train")
        self.seen = len(features["global"]), sorted(label.tolist()), task.unique().tolist()


def test_a_method_may_fit_instead(build, register_trainer):
    register_trainer(Fitted)
    trainer = build("Fitted", "DATASET.SUBSAMPLE_TASKS", "task0")
    trainer.train()
    assert trainer.seen == (12, sorted([0, 1, 2] * 4), [0])  # every training image, once
    assert trainer.evaluator.tasks[0]["total"] == 9


def test_record_of_another_method_does_not_matter(build, run, tmp_path):
    """A method that is added later changes no hash of earlier runs."""
    content = run("CoOp", *options())
    cfg = build("CoOp", *options()).cfg
    assert list(cfg.TRAINER) == ["NAME", "COOP"]
    assert content["hashes"]["config"]
    assert RunRecord(tmp_path, cfg).content["status"] == "running"
