"""The chain of CoT against its equations, image by image and step by step."""

import pytest
import torch

from dassl.utils import UserError
from prompting.prompter import ModelOutput
from tests.reference import cocoop
from tests.reference import cot as naive
from tests.trainers._chains import NAMES, chains_of, check, make, net_of, widen

KEEP = torch.tensor([True, False, True, True])


@pytest.mark.parametrize("class_mask", [None, KEEP], ids=["all", "kept"])
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("CHAIN_LENGTH", 2, "CLASS_TOKEN_POSITION", "middle", "CHUNK", 0),
        ("LINK", "additive", "LINK_RANGE", "(0.2, 3.0)", "ACCUMULATE", 0.5),
        ("CHAIN_LENGTH", 4, "CONTROLLER", "False", "LINK_WEIGHT", 0.3, "SHARED_META_NET", "True"),
        ("CHAIN_LENGTH", 1, "CLASS_TOKEN_POSITION", "front", "HIDDEN", 7),
    ],
    ids=["default", "middle", "additive", "constant links", "one step"],
)
def test_equations(build, one_task, naive_model, token_ids, close, options, class_mask):
    trainer = make(build, "N_CTX", 2, "CHUNK", 3, *options)
    leaves = widen(trainer)
    node = trainer.cfg.TRAINER.COT
    if class_mask is not None:  # an image of a dropped class has no loss
        there = class_mask[one_task["label"]]
        one_task = {key: value[there] for key, value in one_task.items()}
    last = [chain[-1] for chain in chains_of(one_task["feat"].double(), leaves, node)]
    text = naive.text_features(last, token_ids(NAMES), node.CLASS_TOKEN_POSITION, naive_model)
    check(trainer, one_task, text, leaves, close, class_mask)


@pytest.mark.parametrize(
    ("link", "weight", "expected"),
    [
        ("convex", 0.0, lambda own: own[0]),
        ("convex", 1.0, lambda own: own[2]),
        ("additive", 0.0, lambda own: own[2]),
        ("additive", 1.0, lambda own: own[0] + own[1] + own[2]),
    ],
)
@pytest.mark.parametrize("by", ["range", "constant"])
def test_links_at_their_ends(build, one_task, link, weight, expected, by):
    """Weights of 0 and 1, by the controller's range or with the controller off."""
    ends = ("LINK_RANGE", f"({weight}, {weight})")
    if by == "constant":
        ends = ("CONTROLLER", "False", "LINK_WEIGHT", weight)
    chain = make(build, "LINK", link, *ends).model.prompter.chain
    image = torch.nn.functional.normalize(one_task["feat"], dim=-1)
    shifts = torch.stack([net(image) for net in chain.meta_nets]).cumsum(0)  # (N, B, d)
    own = chain.ctx[:, None] + shifts[:, :, None]
    torch.testing.assert_close(chain(image)[-1], expected(own))


@pytest.mark.parametrize(
    ("carry", "sums"), [(0.0, ((0,), (1,), (2,))), (1.0, ((0,), (0, 1), (0, 1, 2)))]
)
def test_shifts_accumulate_or_not(build, one_task, carry, sums):
    options = ("ACCUMULATE", carry, "CONTROLLER", "False", "LINK_WEIGHT", 1.0)
    chain = make(build, *options).model.prompter.chain  # convex links of 1: P_i is own_i
    image = torch.nn.functional.normalize(one_task["feat"], dim=-1)
    for i, terms in enumerate(sums):
        shift = sum(chain.meta_nets[j](image) for j in terms)
        torch.testing.assert_close(chain(image)[i], chain.ctx[i] + shift[:, None])


def test_one_step_is_cocoop(build, one_task, naive_model, token_ids, close):
    trainer = make(build, "CHAIN_LENGTH", 1, "N_CTX", 3, "CONTROLLER", "False")
    leaves = widen(trainer)
    assert sorted(leaves) == [
        "chain.ctx",
        *(f"chain.meta_nets.0.linear{i}.{part}" for i in (1, 2) for part in ("bias", "weight")),
    ]
    net = net_of(leaves, "chain.meta_nets.0")
    features = one_task["feat"].double()
    ctx = leaves["chain.ctx"][0]
    text = torch.stack(
        cocoop.text_features(naive_model, token_ids(NAMES), ctx, net, features, "end")
    )
    check(trainer, one_task, text, leaves, close)


def test_one_step_trains_as_cocoop_does(run, tmp_path):
    task = ("DATASET.SUBSAMPLE_TASKS", "task2")
    chain = ("TRAINER.COT.CHAIN_LENGTH", 1, "TRAINER.COT.CONTROLLER", "False")
    a = run("CoT", *task, *chain, "TRAINER.COT.N_CTX", 4, output=tmp_path / "a")
    b = run("CoCoOp", *task, "TRAINER.COCOOP.N_CTX", 4, output=tmp_path / "b")
    assert a["tasks"] == b["tasks"]
    assert a["trainable"] == b["trainable"]
    weights = [
        torch.load(tmp_path / r / "prompt_learner/model.pth.tar-2", weights_only=True)["state_dict"]
        for r in "ab"
    ]
    for mine, theirs in zip(*(w.values() for w in weights), strict=True):
        torch.testing.assert_close(mine.squeeze(0), theirs.squeeze(0))


@pytest.mark.parametrize("position", ["end", "middle"])
def test_chunks_change_nothing(build, one_task, close, position):
    results = []
    for chunk in (0, 1, 3):
        trainer = make(build, "CHUNK", chunk, "CLASS_TOKEN_POSITION", position)
        widen(trainer)
        logits = trainer.forward({"global": one_task["feat"]}).logits
        loss = trainer.compute_loss(ModelOutput(logits), one_task)["loss"]
        results.append([logits, *torch.autograd.grad(loss, trainer.model.prompter.parameters())])
    for other in results[1:]:
        for mine, theirs in zip(other, results[0], strict=True):
            close(mine, theirs.double(), 1e-5)


def test_words_start_every_step(build):
    trainer = make(build, "CTX_INIT", "a photo of a", "N_CTX", 9, "CHAIN_LENGTH", 2)
    text = trainer.clip.text_tower
    start = text.embed(text.tokenize(["a photo of a"])[0, 1:5])
    assert torch.equal(trainer.model.prompter.chain.ctx, start.expand(2, -1, -1))


def test_prompts_depend_on_the_image(build, one_task):
    trainer = make(build)
    first = trainer.model.text_features(torch.eye(2, 64))
    assert first.shape == (2, 4, 64)
    assert not torch.allclose(first[0], first[1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("CHAIN_LENGTH", 0), "TRAINER.COT.CHAIN_LENGTH .*got 0"),
        (("N_CTX", 0), "TRAINER.COT.N_CTX .*got 0"),
        (("HIDDEN", -1), "TRAINER.COT.HIDDEN .*got -1"),
        (("CHUNK", -2), "TRAINER.COT.CHUNK .*got -2"),
        (("LINK", "convx"), "TRAINER.COT.LINK .*got 'convx'; did you mean convex"),
        (("LINK_RANGE", "(0.0,)"), "takes two numbers, low and high"),
        (("LINK_RANGE", "(0.8, 0.2)"), "LINK_RANGE"),
        (("LINK_RANGE", "(0.0, 2.0)"), "LINK_RANGE"),
        (("LINK_RANGE", "('a', 'b')"), "LINK_RANGE takes a list of numbers"),
        (("LINK_WEIGHT", 1.5), "LINK_WEIGHT 1.5"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)


def test_a_checkpoint_of_another_form_is_refused(run, tmp_path):
    """Its shapes would fit: three templates, three steps."""
    run("CoT", output=tmp_path / "learned")
    flags = ("--eval-only", "--model-dir", str(tmp_path / "learned"))
    with pytest.raises(UserError, match=r"another TRAINER\.COT\.GENERATOR: learned, here rule"):
        run("CoT", "TRAINER.COT.GENERATOR", "rule", output=tmp_path / "rule", flags=flags)
