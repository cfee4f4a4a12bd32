"""CoOp's prompts, shared and per class, against naive ones: values and gradients."""

import pytest
import torch

from clip import load_backbone
from dassl.utils import UserError
from prompting.prompt_learner import PromptLearner, scatter_rows
from tests.clip._families import make_family
from tests.conftest import TASKS
from tests.reference import prompts as naive
from tests.trainers._compare import (
    KEEP,
    KEPT_BATCH,
    NAMES,
    OWNER,
    SCORED,
    compare,
    naive_leaf,
    wide,
)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("sharing", ["", "TSC", "CSC"])
def test_joint_prompts(build, batch, naive_model, token_ids, close, sharing, position):
    options = ("TRAINER.MTCOOPH.N_CTX", 5, "TRAINER.MTCOOPH.TOKEN_POSITION", position)
    options += (f"TRAINER.MTCOOPH.{sharing}", "True") if sharing else ()
    trainer = build("MTCoOpHard", *options)
    ctx = trainer.model.prompter.prompts.ctx
    wide(ctx)
    leaf = naive_leaf(ctx)
    rows = {"": [leaf] * len(NAMES), "TSC": [leaf[t] for t in OWNER], "CSC": leaf}[sharing]
    expected = naive.features(token_ids(NAMES), list(rows), position, **naive_model)
    compare(trainer, batch, expected, [leaf], close)


@pytest.mark.parametrize("csc", [False, True])
def test_coop_on_one_task(build, naive_model, token_ids, close, csc):
    trainer = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task2", "TRAINER.COOP.CSC", csc)
    names = TASKS[2].classnames
    ctx = trainer.model.prompter.prompts.ctx
    assert ctx.shape == ((4, 16, 64) if csc else (16, 64))
    rows = list(ctx.double()) if csc else [ctx.double()] * 4
    expected = naive.features(token_ids(names), rows, "end", **naive_model)
    found = trainer.model.prompter(trainer.clip.text_tower, None)
    close(found, expected)


@pytest.mark.parametrize("sharing", ["", "CSC"])
def test_dropped_classes_cost_nothing_and_change_nothing(build, close, sharing):
    options = (f"TRAINER.MTCOOPH.{sharing}", "True") if sharing else ()
    trainer = build("MTCoOpHard", "TRAINER.MTCOOPH.N_CTX", 4, *options)
    prompter, text = trainer.model.prompter, trainer.clip.text_tower
    whole, kept = prompter(text, None), prompter(text, None, KEEP)
    close(kept[KEEP], whole[KEEP].double(), 1e-6)
    assert not kept[~KEEP].any()
    batch = {"feat": torch.randn(5, 64), **KEPT_BATCH}
    loss = trainer.compute_loss(trainer.forward({"global": batch["feat"]}, KEEP), batch, KEEP)[
        "loss"
    ]
    (grad,) = torch.autograd.grad(loss, prompter.prompts.ctx)
    assert grad.isfinite().all()
    if sharing:
        assert not grad[~SCORED].any()
        assert all(row.any() for row in grad[SCORED])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_with_dropped_classes(build, naive_model, token_ids, close, smoothing):
    trainer = build("MTCoOpHard", "OPTIM.LABEL_SMOOTHING", smoothing)
    leaf = naive_leaf(trainer.model.prompter.prompts.ctx)
    expected = naive.features(token_ids(NAMES), [leaf] * len(NAMES), "end", **naive_model)
    batch = {"feat": torch.randn(5, 64), **KEPT_BATCH}
    compare(trainer, batch, expected, [leaf], close, KEEP, smoothing)


@pytest.mark.parametrize("group", [None, torch.tensor([0, 0, 1])])
def test_words_start_the_context(group):
    text = load_backbone("tiny/random").text_tower
    learner = PromptLearner(["a_b", "c", "d"], text, 16, "a photo of_a", group)
    words = text.embed(text.tokenize(["a photo of a"])[0, 1:5])
    assert learner.n_ctx == 4
    rows = [learner.ctx] if group is None else list(learner.ctx)
    assert len(rows) == (1 if group is None else 2)
    for row in rows:
        assert torch.equal(row, words)
    found = text.encode(learner())
    plain = text.encode_text([f"a photo of a {name}." for name in ("a b", "c", "d")])
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_names_of_many_tokens_and_signs(naive_model, token_ids, close, position):
    names = ["St. John's wort", "F-16A/B", "a", "tri-tip (roasted), medium_rare", "x..."]
    text = load_backbone("tiny/random").text_tower
    learner = PromptLearner(names, text, n_ctx=3, position=position)
    rows = [learner.ctx.double()] * len(names)
    expected = naive.features(token_ids(names), rows, position, **naive_model)
    close(text.encode(learner()), expected)


def test_no_context_is_the_bare_name():
    text = load_backbone("tiny/random").text_tower
    learner = PromptLearner(["red fox", "hen"], text, n_ctx=0)
    assert not list(learner.parameters())
    found = text.encode(learner())
    torch.testing.assert_close(found, text.encode_text(["red fox.", "hen."]))


def test_contexts_start_as_published():
    text = load_backbone("tiny/random").text_tower
    torch.manual_seed(0)
    ctx = PromptLearner(["a"], text, n_ctx=60).ctx
    assert ctx.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(ctx.mean().item()) < 0.001


def test_state_is_the_context_alone():
    text = load_backbone("tiny/random").text_tower
    assert list(PromptLearner(["a", "b"], text).state_dict()) == ["ctx"]


def test_scatter_keeps_order_and_gradient():
    kept = torch.tensor([[1.0], [2.0]], requires_grad=True)
    class_mask = torch.tensor([0, 1, 0, 1]).bool()
    out = scatter_rows(kept, class_mask)
    assert out.flatten().tolist() == [0, 1, 0, 2]
    (out * torch.arange(4.0)[:, None]).sum().backward()
    assert kept.grad.flatten().tolist() == [1, 3]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"position": "back"}, "must be one of end, middle, front; got 'back'"),
        ({"n_ctx": -1}, "0 tokens or more; got -1"),
        ({"n_ctx": 75}, "prompt of 'a b c' needs 81 tokens with 75 context tokens"),
        ({"names": ["word " * 80]}, r"the prompt of .word word .* needs \d+ tokens"),
    ],
)
def test_refused(how, message):
    text = load_backbone("tiny/random").text_tower
    with pytest.raises(UserError, match=message):
        PromptLearner(**{"names": ["a", "a b c"], "text": text, **how})


def test_longest_context_that_fits():
    text = load_backbone("tiny/random").text_tower
    learner = PromptLearner(["a"], text, n_ctx=73)  # SOS + 73 + "a" + "." + EOT
    assert text.encode(learner()).shape == (1, 64)


@pytest.mark.parametrize("position", ["end", "front"])
def test_words_know_whether_they_begin_a_prompt(build, tmp_path, position):
    """Some tokenizers have another token for a word after a blank."""
    pytest.importorskip("transformers")
    make_family(tmp_path, "siglip2", hub=True)
    words = {"CTX_INIT": "a photo of the", "CLASS_TOKEN_POSITION": position}
    opts = [x for key, value in words.items() for x in (f"TRAINER.COOP.{key}", value)]
    one = ("DATASET.SUBSAMPLE_TASKS", "task0", "MODEL.BACKBONE.NAME", tmp_path)
    trainer = build("CoOp", *one, *opts, output="unused")
    names = [name.replace("_", " ") for name in TASKS[0].classnames]
    order = {"end": "a photo of the {}.", "front": "{} a photo of the."}[position]
    text = trainer.clip.text_tower
    expected = text.encode_text([order.format(name) for name in names])
    torch.testing.assert_close(trainer.model.prompter(text, torch.empty(0)), expected)
