"""Saved checkpoints, and the model that is tested: last step or best on the validation images."""

import pytest

from dassl.utils import UserError
from tests.dassl.engine._trainers import Plain, same, weights


def saved(folder):
    return sorted(p.name for p in (folder / "model").glob("model*"))


@pytest.mark.parametrize(("every", "epochs"), [(0, [5]), (2, [2, 4, 5]), (1, [1, 2, 3, 4, 5])])
def test_checkpoint_freq(make, tmp_path, every, epochs):
    make(Plain, "TRAIN.CHECKPOINT_FREQ", every, "OPTIM.MAX_EPOCH", 5).train()
    assert saved(tmp_path / "run") == [f"model.pth.tar-{e}" for e in epochs]
    assert (tmp_path / "run" / "model" / "checkpoint").read_text().strip() == "model.pth.tar-5"


class Scripted(Plain):
    """A trainer whose validation results are given, and that keeps its weights of each epoch."""

    script = [10.0, 40.0, 30.0, 40.0]

    def test(self, split=None):
        if split == "val":
            self.kept = [*getattr(self, "kept", []), weights(self)]
            return self.script[self.epoch]
        self.tested = weights(self)
        return super().test(split)


def test_best_val_tests_the_first_best_epoch(make, tmp_path):
    trainer = make(Scripted, "TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", 4)
    trainer.train()
    assert not same(trainer.kept[1], trainer.kept[3])
    assert same(trainer.tested, trainer.kept[1])
    assert saved(tmp_path / "run") == ["model-best.pth.tar", "model.pth.tar-4"]
    other = make(Scripted, output=tmp_path / "other")
    other.load_model(tmp_path / "run")  # no epoch: the best
    assert same(weights(other), trainer.kept[1])
    other.load_model(tmp_path / "run", epoch=4)
    assert same(weights(other), trainer.kept[3])


def test_last_step_needs_no_validation(make, tmp_path):
    trainer = make(Scripted, "OPTIM.MAX_EPOCH", 4)
    trainer.train()
    assert not hasattr(trainer, "kept")
    assert same(trainer.tested, weights(trainer))
    other = make(Scripted, output=tmp_path / "other")
    other.load_model(tmp_path / "run")  # no epoch: the last
    assert same(weights(other), weights(trainer))
    other.load_model("")  # nothing to load


def test_no_test(make):
    trainer = make(Scripted, "TEST.NO_TEST", "True", "TEST.FINAL_MODEL", "best_val")
    trainer.train()
    assert not hasattr(trainer, "tested")
    assert trainer.results()["tasks"] == []


def test_no_test_of_a_suite(run):
    content = run("CoOp", "TEST.NO_TEST", "True", "OPTIM.MAX_EPOCH", 1)
    assert content["tasks"] == []
    assert content["suite"]["value"] is None


class Peeking(Plain):
    """Looks at the test images before training is over."""

    def after_epoch(self):
        super().after_epoch()
        self.test("test")


def test_test_images_wait_until_the_model_is_chosen(make):
    trainer = make(Peeking)
    with pytest.raises(RuntimeError, match="test images"):
        trainer.train()
    assert trainer.test() >= 0  # nothing is being chosen any more


class ValIsTest(Plain):
    """Toy whose validation images are its test images."""

    def build_data_loader(self):
        super().build_data_loader()
        data = self.dm.dataset
        data.val, self.val_loader = data.test, self.test_loader


def test_models_are_not_chosen_on_test_images(make, capsys):
    with pytest.raises(UserError, match=r"best_val would be selected on .*, such as .*\.png"):
        make(ValIsTest, "TEST.FINAL_MODEL", "best_val")
    capsys.readouterr()
    make(ValIsTest, "TEST.FINAL_MODEL", "best_val", "TEST.SPLIT", "val")
    assert "best_val is chosen on the evaluated images" in capsys.readouterr().out
    make(ValIsTest).train()


@pytest.mark.parametrize("choice", ["last_step", "best_val"])
def test_the_record_says_how_the_model_is_chosen(run, choice):
    opts = ("TEST.FINAL_MODEL", choice, "OPTIM.MAX_EPOCH", 1)
    assert run("CoOp", *opts)["protocol"]["selection"] == choice


def test_validation_images_can_be_tested_on(make):
    trainer = make(Plain, "TEST.SPLIT", "val")
    trainer.train()
    assert trainer.results()["tasks"][0]["total"] == 6


class NoVal(Plain):
    """Toy without validation images."""

    def build_data_loader(self):
        super().build_data_loader()
        self.val_loader = None


class NoTrain(Plain):
    """Toy without training images."""

    def build_data_loader(self):
        super().build_data_loader()
        self.train_loader_x = None


@pytest.mark.parametrize(
    ("cls", "key", "value", "message"),
    [
        (Plain, "TEST.FINAL_MODEL", "best", "TEST.FINAL_MODEL takes .*; got 'best'; did you mean"),
        (Plain, "TEST.SPLIT", "train", "TEST.SPLIT takes .*; got 'train'"),
        (NoVal, "TEST.SPLIT", "val", "Toy has no val images; choose another"),
        (Plain, "TRAINER.NAME", "plain", "no trainer named 'plain'; did you mean Plain"),
    ],
)
def test_refused_before_the_first_batch(make, cls, key, value, message):
    with pytest.raises(UserError, match=message):
        make(cls, key, value)


def test_a_selection_without_validation_images(make):
    trainer = make(NoVal, "TEST.FINAL_MODEL", "best_val")
    for start in (trainer.describe, trainer.train):
        with pytest.raises(UserError, match="Toy has no val images; choose another"):
            start()
    assert trainer.test() >= 0  # an evaluation selects nothing


def test_no_training_images(make):
    trainer = make(NoTrain)
    assert trainer.describe()[-1].startswith("0 steps per epoch")
    with pytest.raises(UserError, match="Toy has no training images"):
        trainer.train()
    assert trainer.test() >= 0  # there is something to evaluate


def test_starting_weights(make, tmp_path):
    first = make()
    first.train()
    path = tmp_path / "run" / "model" / "model.pth.tar-2"
    second = make(Plain, "MODEL.INIT_WEIGHTS", path, output=tmp_path / "other")
    assert same(weights(second), weights(first))
