"""ProGrad against its equations, and where it is CoOp."""

import pytest
import torch

from dassl.engine import Step
from dassl.utils import UserError, load_checkpoint
from tests.conftest import TASKS
from tests.reference import prograd
from tests.reference import prompts as naive
from tests.trainers._compare import agree, naive_leaf, wide
from trainers.prograd import project, start_with_words

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
NAMES = TASKS[2].classnames


def make(build, *options):
    pairs = zip(options[::2], options[1::2], strict=True)
    words = (w for key, value in pairs for w in (f"TRAINER.PROGRAD.{key}", value))
    return build("ProGrad", *ONE, *words)


def naive_scores(trainer, batch, naive_model, token_ids, leaf):
    """Scores of the learned context (m, d) or contexts (C, m, d), and of zero-shot CLIP."""
    images, scale = batch["feat"].double(), trainer.clip.logit_scale.double()
    rows = leaf if leaf.dim() == 3 else [leaf] * len(NAMES)
    text = naive.features(token_ids(NAMES), list(rows), "end", **naive_model)
    phrases = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    written = trainer.clip.text_tower.encode_text(phrases).double()
    return naive.logits(images, text, scale), naive.logits(images, written, scale)


def labels_with(conflict, scores, toward, leaf):
    """Labels whose gradient goes against ``toward``, or does not, and that gradient."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        label = torch.randint(4, (len(scores),), generator=generator)
        loss = naive.loss(scores, label.tolist(), [0] * len(scores), [4])
        (own,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        if ((own * toward).sum() < 0) == conflict:
            return label, loss, own
    raise AssertionError("no such labels")


@pytest.mark.parametrize("conflict", [True, False])
@pytest.mark.parametrize(
    ("share", "temperature", "csc"), [(1.0, 1.0, False), (0.8, 2.0, False), (1.0, 1.0, True)]
)
def test_equations(
    build, one_task, naive_model, token_ids, close, conflict, share, temperature, csc
):
    trainer = make(build, "LAMBDA", share, "T", temperature, "N_CTX", 3, "CSC", csc)
    ctx = trainer.model.prompter.prompts.ctx
    wide(ctx)
    leaf = naive_leaf(ctx)
    scores, teacher = naive_scores(trainer, one_task, naive_model, token_ids, leaf)
    match = prograd.match(scores, teacher, temperature)
    (toward,) = torch.autograd.grad(match, leaf, retain_graph=True)
    label, loss, own = labels_with(conflict, scores, toward, leaf)
    batch, losses = {**one_task, "label": label}, {"loss": loss, "match": match}
    agree(trainer, batch, scores, losses, [leaf], close)
    found = trainer.compute_loss(trainer.forward({"global": batch["feat"]}), batch)
    trainer.backward(found)
    close(ctx.grad, prograd.projected(own, toward, share))
    if not conflict:
        close(ctx.grad, own)


def test_conflicting_gradients_end_orthogonal():
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(4, 8, generator=generator)
    gradient = torch.randn(4, 8, generator=generator) - 2 * direction
    found = project(gradient, direction, 1.0)
    assert (gradient * direction).sum() < 0
    assert abs((found * direction).sum()) < 1e-5 * found.norm() * direction.norm()
    assert torch.equal(project(-gradient, direction, 1.0), -gradient)


@pytest.mark.parametrize("size", [1e-30, 1e-44, 1e30])  # squares of the first two are 0 in fp32
def test_only_the_side_of_a_direction_counts(size):
    direction = torch.tensor([size, 0.0])
    found = project(torch.tensor([-3.0, 2.0]), direction, 1.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 2.0]))


def test_a_loss_that_is_no_number_stops_the_training(build):
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        make(build).backward({"loss": torch.tensor(float("nan")), "match": torch.tensor(1.0)})


def test_no_direction_takes_nothing_away():
    gradient = torch.tensor([[-3.0, 2.0]])
    assert torch.equal(project(gradient, torch.zeros(1, 2), 1.0), gradient)


def test_lambda_0_is_coop(run, tmp_path):
    contexts = []
    for method, options in (("CoOp", ()), ("ProGrad", ("TRAINER.PROGRAD.LAMBDA", 0))):
        run(method, *ONE, *options, output=tmp_path / method)
        file = tmp_path / method / "prompt_learner" / "model.pth.tar-2"
        contexts.append(load_checkpoint(file)["state_dict"]["prompts.ctx"])
    torch.testing.assert_close(*contexts)


def test_the_teacher_is_zero_shot_clip(build, one_task):
    images = one_task["feat"]
    trainer = make(build)
    x = torch.nn.functional.normalize(images, dim=-1)
    found = trainer.model.score(x, trainer.templates.features)
    zero_shot = build("ZeroshotCLIP", *ONE).forward({"global": images}).logits
    torch.testing.assert_close(found, zero_shot)


def test_features_are_computed_once_a_step(build, monkeypatch):
    trainer = make(build)
    calls = []
    encode = trainer.clip.encode_image
    monkeypatch.setattr(
        type(trainer.clip), "encode_image", lambda self, x: calls.append(len(x)) or encode(x)
    )
    trainer.train_step(next(iter(trainer.train_loader_x)), Step(0, 0, 2))
    assert calls == [8]


@pytest.mark.parametrize("csc", [False, True])
def test_the_words_of_the_template_stand_last(build, csc):
    template = "a type of pet, a photo of a {}."
    trainer = make(build, "CTX_INIT", True, "N_CTX", 12, "TEMPLATE", template, "CSC", csc)
    ctx, text = trainer.model.prompter.prompts.ctx, trainer.clip.text_tower
    words = text.tokenize(["a type of pet, a photo of a"])[0, 1:10]  # the comma is one of nine
    assert ctx.shape == ((4, 12, 64) if csc else (12, 64))
    for row in ctx if csc else [ctx]:
        assert not row[:3].any()
        assert torch.equal(row[3:], text.embed(words))


def test_exactly_the_words_are_zero_shot(build, one_task):
    trainer = make(build, "CTX_INIT", True, "N_CTX", 4)
    zero_shot = build("ZeroshotCLIP", *ONE)
    images = {"global": one_task["feat"]}
    torch.testing.assert_close(trainer.forward(images).logits, zero_shot.forward(images).logits)


def test_a_template_that_begins_with_the_name_starts_at_random(build):
    plain, started = (
        make(build, "TEMPLATE", "{} texture.", "CTX_INIT", on).model.prompter.prompts.ctx
        for on in (False, True)
    )
    assert torch.equal(plain, started)
    assert plain.any()


def test_more_words_than_tokens_are_refused(build):
    text = make(build).clip.text_tower
    with pytest.raises(UserError, match=r"4 tokens.*N_CTX is 3"):
        start_with_words(torch.zeros(3, 64), "a photo of a {}.", text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("N_CTX", 0), r"TRAINER.PROGRAD.N_CTX .*got"),
        (("T", 0.0), r"TRAINER.PROGRAD.T .*got 0.0"),
        (("LAMBDA", -1.0), r"TRAINER.PROGRAD.LAMBDA .*got -1.0"),
        (("TEMPLATE", "a photo"), r"template 'a photo' of task 'stripes' must hold \{\} once"),
        (("TEMPLATE", "{} or {}"), r"template .* must hold \{\} once"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)
