"""KgCoOp against its equations, and where it is CoOp."""

import pytest
import torch

from dassl.utils import UserError, load_checkpoint
from tests.conftest import TASKS
from tests.reference import kgcoop
from tests.reference import prompts as naive
from tests.trainers._compare import agree, naive_leaf, wide

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
NAMES = TASKS[2].classnames


def make(build, *options, **how):
    pairs = zip(options[::2], options[1::2], strict=True)
    named = ((k if "." in k else f"TRAINER.KGCOOP.{k}", value) for k, value in pairs)
    return build("KgCoOp", *ONE, *(word for pair in named for word in pair), **how)


@pytest.mark.parametrize(
    ("options", "template"),
    [
        ((), "a photo of a {}."),
        (("CSC", "True", "CTX_INIT", ""), "a photo of a {}."),
        (("W", 2.5, "TEMPLATE", "{} texture."), "{} texture."),
    ],
)
def test_equations(build, one_task, naive_model, token_ids, close, options, template):
    trainer = make(build, *options)
    ctx = trainer.model.prompter.prompts.ctx
    assert ctx.shape == ((4, 4, 64) if "CSC" in options else (4, 64))
    wide(ctx)
    leaf = naive_leaf(ctx)
    rows = leaf if leaf.dim() == 3 else [leaf] * 4
    text = naive.features(token_ids(NAMES), list(rows), "end", **naive_model)
    scores = naive.logits(one_task["feat"].double(), text, trainer.clip.logit_scale.double())
    phrases = [template.format(name.replace("_", " ")) for name in NAMES]
    written = trainer.clip.text_tower.encode_text(phrases).double()
    losses = {
        "loss": naive.loss(scores, one_task["label"].tolist(), [0] * 5, [4]),
        "distance": kgcoop.distance(text, written, 2.5 if "W" in options else 8.0),
    }
    agree(trainer, one_task, scores, losses, [leaf], close)


def test_weight_0_is_coop(run, tmp_path):
    contexts = []
    for method, options in (
        ("CoOp", ("TRAINER.COOP.CTX_INIT", "a photo of a")),
        ("KgCoOp", ("TRAINER.KGCOOP.W", 0)),
    ):
        run(method, *ONE, *options, output=tmp_path / method)
        file = tmp_path / method / "prompt_learner" / "model.pth.tar-2"
        contexts.append(load_checkpoint(file)["state_dict"]["prompts.ctx"])
    torch.testing.assert_close(*contexts)


def test_it_starts_at_the_template(build, one_task):
    trainer = make(build)
    output = trainer.forward({"global": one_task["feat"]})
    assert abs(trainer.compute_loss(output, one_task)["distance"].item()) < 1e-5
    zero_shot = build("ZeroshotCLIP", *ONE).forward({"global": one_task["feat"]}).logits
    torch.testing.assert_close(output.logits, zero_shot)


def test_the_weight_holds_it_there(build, tmp_path):
    away = []
    for weight in (0, 8):
        how = ("W", weight, "OPTIM.MAX_EPOCH", 6)
        trainer = make(build, *how, output=tmp_path / str(weight))
        trainer.train()
        with torch.no_grad():
            text = trainer.model.text_features(torch.empty(0))
        away.append(1 - (text * trainer.templates.features).sum(-1).mean())
    assert 0 < away[1] < away[0] / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("N_CTX", 0, "CTX_INIT", ""), r"TRAINER.KGCOOP.N_CTX .*got"),
        (("W", -1), r"TRAINER.KGCOOP.W .*got -1.0"),
        (("TEMPLATE", "a photo of it."), "'a photo of it.'"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)
