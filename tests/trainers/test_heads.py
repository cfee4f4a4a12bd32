"""Methods on frozen image features: what they choose, their checkpoints, what they refuse."""

from dataclasses import replace

import pytest

from dassl.data import TaskSpace
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, load_checkpoint
from tests.conftest import TASKS, toy_class
from tests.trainers._heads import ONE

FITTED = {  # the methods that fit or tune, with options that make them do so
    "LinearProbe": (),
    "ProtoNet": (),
    "TipAdapter": ("TRAINER.TIP.BETA_STEPS", 5),
    "TipAdapter-F": ("TRAINER.TIP.BETA_STEPS", 5, "TRAINER.TIP.FINETUNE", "True"),
    "CLIPAdapter": ("TRAINER.CLIP_ADAPTER.SEARCH", "True"),
    "LPPlusPlus": (),
}


@pytest.mark.parametrize("case", FITTED)
def test_checkpoint_is_the_trained_model(run, tmp_path, case):
    trainer, opts = case.removesuffix("-F"), FITTED[case]
    trained = run(trainer, *opts)
    folder = tmp_path / "run"
    flags = ("--eval-only", "--model-dir", str(folder))
    again = run(trainer, *opts, output=tmp_path / "again", flags=flags)
    assert again["tasks"] == trained["tasks"]
    assert again["trainable"] == trained["trainable"]
    (file,) = (folder / "task1" / "prompt_learner").glob("model.pth.tar-*")
    assert file.name == f"model.pth.tar-{2 if case in ('TipAdapter-F', 'CLIPAdapter') else 0}"
    bound = [] if case == "CLIPAdapter" else list(TASKS[1].classnames)
    assert load_checkpoint(file)["facts"]["set of names"] == bound


@pytest.mark.parametrize("case", FITTED)
def test_record_says_what_validation_chose(build, case):
    chosen = {"LinearProbe": "C", "CLIPAdapter": "RATIO", "LPPlusPlus": "ITERATION"}
    chosen = chosen.get(case, "ALPHA and BETA")
    trainer = build(case.removesuffix("-F"), *FITTED[case])
    if case == "ProtoNet":
        assert trainer.selection == "none"
    else:
        stepped = case in ("TipAdapter-F", "CLIPAdapter")
        model = "last_step" if stepped else "none"
        assert trainer.selection == f"{model}, {chosen} on val"
    stepped = case in ("TipAdapter-F", "CLIPAdapter")
    assert trainer.steps_rule == ("one step per batch" if stepped else "fitted")


@pytest.mark.parametrize("trainer", ["LPPlusPlus", "LinearProbe", "ProtoNet", "TipAdapter"])
def test_other_classes_are_refused(run, build, tmp_path, trainer):
    """Also where there are as many of them."""
    run(trainer, *ONE)
    other = build(trainer, *ONE)
    task = replace(TASKS[0], classnames=("ash", "elm", "oak"))
    other.dm.dataset = other.dm.dataset.with_space(TaskSpace((task,)))
    with pytest.raises(UserError, match=r"another set of names: \['red', .*here \['ash', 'elm'"):
        other.load_model(tmp_path / "run")


def test_an_adapter_goes_to_other_classes(run, build, tmp_path):
    run("CLIPAdapter", *ONE)
    other = build("CLIPAdapter", "DATASET.SUBSAMPLE_TASKS", "task2")
    other.load_model(tmp_path / "run")
    assert other.test() >= 0


class Watched:
    """Counts the test images that are read, and when."""

    def __init__(self, trainer, monkeypatch):
        self.read, tune = [], trainer.fitting.tune or (lambda: None)
        inner = trainer.test_loader
        monkeypatch.setattr(trainer, "test_loader", self)
        watched = replace(trainer.fitting, tune=lambda: (tune(), self.read.append("tuned")))
        monkeypatch.setattr(trainer, "fitting", watched)
        self.inner = inner

    def __iter__(self):
        self.read.append("test")
        return iter(self.inner)


@pytest.mark.parametrize("case", [case for case in FITTED if case != "ProtoNet"])
def test_test_images_are_read_once_all_is_chosen(build, monkeypatch, case):
    trainer = build(case.removesuffix("-F"), *FITTED[case], *ONE)
    watched = Watched(trainer, monkeypatch)
    with pytest.raises(ValueError, match="learns from train and val, not from 'test'"):
        trainer.split_features("test")
    trainer.train()
    assert watched.read == ["tuned", "test"]


def test_best_epoch_is_tuned_and_kept(run, tmp_path):
    opts = ("TEST.FINAL_MODEL", "best_val", *FITTED["TipAdapter-F"], *ONE)
    trained = run("TipAdapter", *opts, "OPTIM.MAX_EPOCH", 3)
    assert trained["protocol"]["selection"] == "best_val, ALPHA and BETA on val"
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    again = run("TipAdapter", *opts, output=tmp_path / "again", flags=flags)
    assert again["tasks"] == trained["tasks"]


@pytest.fixture
def odd_toys(toy_folder):
    """Registers NoVal, ValIsTest and NoDark (no training image of the class dark_tone)."""

    def change(name, **parts):
        cls = toy_class(name, toy_folder)
        first = cls.__init__

        def init(self, cfg):
            first(self, cfg)
            for part, make in parts.items():
                setattr(self, part, make(self))

        cls.__init__ = init
        DATASET_REGISTRY.register()(cls)

    change("NoVal", val=lambda data: None)
    change("ValIsTest", val=lambda data: data.test)
    dark = TASKS[1].classnames[1]
    change("NoDark", train_x=lambda data: [i for i in data.train_x if i.classname != dark])
    yield
    for name in ("NoVal", "ValIsTest", "NoDark"):
        DATASET_REGISTRY._classes.pop(name)


@pytest.mark.parametrize("case", ["LPPlusPlus", "LinearProbe", "TipAdapter", "CLIPAdapter"])
def test_values_are_not_chosen_on_test_images(build, odd_toys, case):
    with pytest.raises(UserError, match=r"validation images that are also test images"):
        build(case, *FITTED[case], dataset="ValIsTest")
    without = build(case, *FITTED[case], dataset="NoVal")
    for start in (without.describe, without.train):
        with pytest.raises(UserError, match=r"NoVal has no val images; .* set the values"):
            start()


@pytest.mark.parametrize("trainer", ["LPPlusPlus", "TaskRes"])
def test_classes_that_were_not_fitted_are_named(
    run, build, odd_toys, tmp_path, monkeypatch, trainer
):
    """By methods that have values for single classes; without any validation images."""
    run(trainer, "OPTIM.MAX_EPOCH", 1)
    again = build(trainer, dataset="NoVal")
    again.load_model(tmp_path / "run")
    assert again.test() >= 0
    task = replace(TASKS[0], classnames=(*TASKS[0].classnames[:2], "ash"))
    monkeypatch.setattr("tests.conftest.TASKS", (task, *TASKS[1:]))
    other = build(trainer, dataset="NoVal")
    with pytest.raises(UserError, match=rf"task 0 \({task.name}\): .* values for 'ash': "):
        other.load_model(tmp_path / "run")


@pytest.mark.parametrize(
    ("trainer", "opts"),
    [
        ("LinearProbe", ("TRAINER.LP.C", 0.5)),
        ("TipAdapter", ("TRAINER.TIP.SEARCH", "False")),
        ("LPPlusPlus", ("TRAINER.LPPLUSPLUS.SEARCH", "False")),
        ("ProtoNet", ()),
    ],
)
@pytest.mark.parametrize("dataset", ["NoVal", "ValIsTest"])
def test_values_that_are_given_need_no_validation(run, odd_toys, trainer, opts, dataset):
    assert run(trainer, *opts, *ONE, dataset=dataset)["protocol"]["selection"] == "none"


@pytest.mark.parametrize("trainer", ["LPPlusPlus", "LinearProbe", "ProtoNet"])
def test_a_class_without_images_is_named(build, odd_toys, trainer):
    broken = build(trainer, dataset="NoDark")
    with pytest.raises(UserError, match="every class, but 'dark_tone' of the task 'light or dark'"):
        broken.train()


def test_a_cache_may_lack_a_class(run, odd_toys):
    assert run("TipAdapter", *FITTED["TipAdapter"], dataset="NoDark")["status"] == "complete"


@pytest.mark.parametrize(
    ("trainer", "opts", "message"),
    [
        ("LinearProbe", ("LP.C", -1), "LP.C .*got -1.0"),
        ("LinearProbe", ("LP.MAX_ITER", 0), "LP.MAX_ITER .*got 0"),
        ("ProtoNet", ("PROTONET.DISTANCE", "cosin"), "takes .*'cosin'; did you mean cosine"),
        ("TipAdapter", ("TIP.BETA_MAX", 0.1), "BETA_MAX takes .* above 0.1; got 0.1"),
        ("TipAdapter", ("TIP.ALPHA_STEPS", 0), "ALPHA_STEPS .*got 0"),
        ("TipAdapter", ("TIP.VIEWS", -1), "TIP.VIEWS .*got -1"),
        ("CLIPAdapter", ("CLIP_ADAPTER.RATIO", 0), "RATIO takes a number above 0 and at most 1"),
        ("CLIPAdapter", ("CLIP_ADAPTER.REDUCTION", 65), "REDUCTION.*64.*got 65"),
    ],
)
def test_refused(build, trainer, opts, message):
    with pytest.raises(UserError, match=message):
        build(trainer, f"TRAINER.{opts[0]}", opts[1])
