"""Methods on a miniature of every family of backbones, from images to a resumed run."""

import importlib.util

import pytest
import torch

import train
from dassl.utils import UserError
from tests.clip._families import FAMILIES, HUB_MODELS, STAND_INS, make_family
from tests.conftest import toy_args
from tests.trainers._methods import METHODS, options

INSTALLED = importlib.util.find_spec("transformers") is not None
REFUSED = {  # what a family's towers cannot give, by the words that say so
    ("coca", "PLOT"): "no 'local' features",
    **{("coca", m): "cannot take prompt tokens" for m in ("IVLP", "MaPLe", "PromptSRC", "VPT")},
    **{("bert", m): "later blocks" for m in ("IVLP", "MaPLe", "PromptSRC", "TCP")},
    ("bert", "CLIPLoRA"): "attention of the text tower",
    ("bert", "MMA"): "blocks of the text tower",
}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """``family(name)``: the folder of a miniature, whose tokenizer loads without transformers."""
    folders, patch = {}, pytest.MonkeyPatch()

    def make(name):
        if name in HUB_MODELS and not INSTALLED:
            pytest.skip("transformers is not installed")
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            make_family(folders[name], name, INSTALLED)
        if not INSTALLED and (kind := FAMILIES[name][1]):
            patch.setattr("clip._hub.load_tokenizer", lambda *_: STAND_INS[kind])
            patch.setattr("clip._hub.require_transformers", lambda _: None)
        return str(folders[name])

    yield make
    patch.undo()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_with_stored_features_resumes(run, build, family, tmp_path, monkeypatch, name):
    """SoftCPT, whose prompts are of tasks and of classes, to its end and from its middle."""
    words = [*options("MTCOOP.CSC"), "MODEL.BACKBONE.NAME", family(name)]
    words += ["FEATURES.MODE", "full", "FEATURES.DIR", tmp_path / "features"]
    whole = run("MTCoOp", *words, output=tmp_path / "whole")
    assert whole["status"] == "complete" and 0 <= whole["suite"]["value"] <= 100

    stopped = build("MTCoOp", *words, output=tmp_path / "stopped")
    monkeypatch.setattr(stopped, "before_epoch", lambda: stop_after_an_epoch(stopped))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = build("MTCoOp", *words, output=tmp_path / "stopped")
    resumed.train()
    alone = build("MTCoOp", *words, output=tmp_path / "whole")
    alone.load_model(str(tmp_path / "whole"))
    expected = alone.model.prompter.state_dict()
    for key, value in resumed.model.prompter.state_dict().items():
        assert torch.equal(value, expected[key]), key


def stop_after_an_epoch(trainer):
    if trainer.epoch:
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["siglip", "metaclip2", "coca", "bert"])
def test_every_method(run, family, name, method):
    words = [*options(), "MODEL.BACKBONE.NAME", family(name), "OPTIM.MAX_EPOCH", 1]
    if (name, method) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name, method]):
            run(method, *words)
        return
    assert run(method, *words)["status"] == "complete"


def test_a_name_that_does_not_fit_is_refused(toy, family, tmp_path):
    """A short context (PE has 32 tokens) is filled by 16 context tokens and a long name."""
    words = ["MODEL.BACKBONE.NAME", family("pe"), "TRAINER.COOP.N_CTX", 28]
    args = toy_args("CoOp", *words, output=tmp_path / "run")
    with pytest.raises(UserError, match=r"'grass green' needs 33 .* takes 32"):
        train.main(args)
