"""DePT against its equations, on several methods; where it is the method alone; other classes."""

import pytest
import torch

from dassl.engine import Step
from dassl.utils import UserError, load_checkpoint
from tests.conftest import TASKS
from tests.reference import kgcoop
from tests.reference import prompts as naive
from tests.trainers._compare import naive_leaf, wide

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
NAMES = TASKS[2].classnames
PHOTO = ("TRAINER.COOP.CTX_INIT", "a photo of a")


def make(build, method, *options, **how):
    return build("DePT", "TRAINER.DEPT.METHOD", method, *ONE, *options, **how)


def far(head):
    """Scales, shifts and classifier away from their start."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))


def naive_head(images, text, labels, leaves):
    """Head logits (B, C) of the images, and the mean cross-entropy of images and their texts."""
    rows, chosen = [], []
    for v, label in zip(images, labels, strict=True):
        v = leaves["image_scale"] * v + leaves["image_shift"]
        t = leaves["text_scale"] * text[label] + leaves["text_shift"]
        rows.append(leaves["classifier.weight"] @ v + leaves["classifier.bias"])
        chosen.append(leaves["classifier.weight"] @ t + leaves["classifier.bias"])
    both = [*rows, *chosen]
    return torch.stack(rows), naive.loss(both, [*labels, *labels], [0] * len(both), [4])


@pytest.mark.parametrize("method", ["CoOp", "KgCoOp"])
def test_equations(build, one_task, naive_model, token_ids, close, method):
    photo = (f"TRAINER.{method.upper()}.CTX_INIT", "a photo of a")
    trainer = make(build, method, *photo, "TRAINER.DEPT.WEIGHT", 0.6)
    prompter = trainer.model.prompter
    wide(prompter.prompts.ctx)
    far(prompter.dept)
    leaf = naive_leaf(prompter.prompts.ctx)
    leaves = {name: naive_leaf(p) for name, p in prompter.dept.named_parameters()}
    text = naive.features(token_ids(NAMES), [leaf] * 4, "end", **naive_model)
    images, labels = one_task["feat"].double(), one_task["label"].tolist()
    cosine = naive.logits(images, text, trainer.clip.logit_scale.double())
    head, loss = naive_head(images, text, labels, leaves)
    output = trainer.forward(trainer.image_features(one_task))
    close(output.logits, 0.4 * cosine + 0.6 * head)
    losses = {"loss": 0.4 * naive.loss(cosine, labels, [0] * 5, [4])}
    if method == "KgCoOp":
        phrases = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
        written = trainer.clip.text_tower.encode_text(phrases).double()
        losses["distance"] = 0.4 * kgcoop.distance(text, written, 8.0)
    losses["head"] = 0.6 * loss
    found = trainer.compute_loss(output, one_task)
    assert list(found) == list(losses)
    for name, wanted in losses.items():
        assert found[name].item() == pytest.approx(wanted.item(), rel=1e-5), name
    own = [prompter.prompts.ctx, *prompter.dept.parameters()]
    grads = torch.autograd.grad(sum(found.values()), own)
    expected = torch.autograd.grad(sum(losses.values()), [leaf, *leaves.values()])
    for mine, theirs in zip(grads, expected, strict=True):
        assert theirs.abs().max() > 0
        close(mine, theirs, 3e-5)


def test_the_head_has_a_rate_of_its_own(build):
    """One SGD step: the prompts by the rate, the head by 6.5 times it."""
    trainer = make(build, "CoOp", *PHOTO, "OPTIM.LR", 0.01, "OPTIM.WEIGHT_DECAY", 0)
    prompter = trainer.model.prompter
    start = {name: p.detach().clone() for name, p in prompter.named_parameters()}
    trainer.set_model_mode("train")
    trainer.train_step(next(iter(trainer.train_loader_x)), Step(0, 0, 2))
    for name, p in prompter.named_parameters():
        rate = 0.065 if name.startswith("dept.") else 0.01
        torch.testing.assert_close(start[name] - p.detach(), rate * p.grad, msg=name)


def test_weight_0_is_the_method(run, tmp_path):
    contexts, results = [], []
    for method, options in (("CoOp", ()), ("DePT", ("TRAINER.DEPT.WEIGHT", 0))):
        results.append(run(method, *ONE, *options, output=tmp_path / method)["tasks"])
        file = tmp_path / method / "prompt_learner" / "model.pth.tar-2"
        contexts.append(load_checkpoint(file)["state_dict"]["prompts.ctx"])
    torch.testing.assert_close(*contexts)
    assert results[0] == results[1]


def test_new_classes_are_scored_by_the_prompts_alone(build, tmp_path):
    trained = make(build, "KgCoOp")
    trained.train()
    how = {"output": tmp_path / "other"}
    words = ("DATASET.SUBSAMPLE_TASKS", "task0")
    other = build("DePT", "TRAINER.DEPT.METHOD", "KgCoOp", *words, **how)
    other.load_model(tmp_path / "run")
    plain = build("KgCoOp", *words, output=tmp_path / "plain")
    with torch.no_grad():
        plain.model.prompter.prompts.ctx.copy_(trained.model.prompter.prompts.ctx)
        images = {"global": torch.randn(3, 64)}
        infer = (other.build_inference("test"), plain.build_inference("test"))
        torch.testing.assert_close(infer[0](images), infer[1](images))
    same = make(build, "KgCoOp", output=tmp_path / "same")
    same.load_model(tmp_path / "run")
    assert same.head_fits and same.test() == trained.test()
    with pytest.raises(UserError, match="does not fit"):
        make(build, "CoCoOp", **how).load_model(tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "options", "name"),
    [
        ("CoCoOp", ("TRAINER.COCOOP.CTX_INIT", "a photo"), "CoCoOp+DePT"),
        (
            "MaPLe",
            ("MODEL.BACKBONE.NAME", "tiny-vit/random", "TRAINER.MAPLE.PROMPT_DEPTH", 2),
            "MaPLe+DePT",
        ),
        (
            "PromptSRC",
            (
                *("MODEL.BACKBONE.NAME", "tiny-vit/random"),
                *("TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2),
                *("TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 3),
            ),
            "PromptSRC+DePT",
        ),
    ],
)
def test_on_other_methods(run, method, options, name):
    content = run("DePT", "TRAINER.DEPT.METHOD", method, *ONE, *options)
    assert content["protocol"]["method"] == name
    assert content["protocol"]["options"]["METHOD"] == method


def test_options_of_the_method_are_its_own(build):
    trainer = make(build, "KgCoOp", "TRAINER.KGCOOP.N_CTX", 3, "TRAINER.KGCOOP.CTX_INIT", "")
    assert set(trainer.cfg.TRAINER) == {"NAME", "DEPT", "KGCOOP"}
    assert trainer.model.prompter.prompts.ctx.shape == (3, 64)
    with pytest.raises(UserError, match=r"METHOD takes .*'CoOps'; did you mean CoOp"):
        make(build, "CoOps")
