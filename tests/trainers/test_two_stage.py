"""2SFS against its equations: norms first, then a classifier; other classes; refusals."""

import pytest
import torch

from dassl.engine import Step
from dassl.utils import UserError
from tests.conftest import TASKS
from tests.reference import images as naive_images
from tests.reference import prompts as naive
from tests.trainers._adapted import ONE, VIT, assert_starts_as_zero_shot_and_clip_stays
from trainers._by_steps import cosine
from trainers.two_stage import norm_copies

KEY = "TRAINER.TWOSTAGE"


def make(build, *options, steps=0, **how):
    optim = ("OPTIM.NAME", "adamw", "OPTIM.WEIGHT_DECAY", 0.01)
    return build("TwoStage", *VIT, *ONE, f"{KEY}.ITERATIONS", steps, *optim, *options, **how)


@pytest.fixture
def one_batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    return {"img": images, "label": torch.tensor([0, 2, 3]), "task": torch.zeros(3).long()}


def norm_names(clip):
    """Names of the norms' weights, those of the text tower first."""
    names = [key.rsplit(".", 1)[0] for key in clip.state_dict() if ".ln_" in f".{key}"]
    names = list(dict.fromkeys(names))
    return [n for n in names if "visual" not in n] + [n for n in names if "visual" in n]


def test_equations_of_the_first_stage(build, one_batch, close):
    """Gradients of every norm, through one naive token and head at a time."""
    trainer = make(build)
    trainer.set_model_mode("train")
    clip, norms = trainer.clip, trainer.model.prompter.norms
    weights = {key: value.double() for key, value in clip.state_dict().items()}
    leaves = {}
    names = norm_names(clip)
    assert len(names) == len(norms) == 2 * 2 + 1 + 3 * 2 + 2
    generator = torch.Generator().manual_seed(2)
    own = []
    for name in names:
        path = name.removeprefix("visual.")
        tower = trainer.model.prompter.visual if "visual" in name else trainer.model.prompter.text
        norm = tower.get_submodule(path)
        for part in ("weight", "bias"):
            parameter = getattr(norm, part)
            with torch.no_grad():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            leaves[f"{name}.{part}"] = parameter.detach().double().requires_grad_()
            own.append(parameter)
    weights |= leaves
    heads = clip.config["text_cfg"]["heads"], clip.config["vision_cfg"]["width"] // 32
    phrases = [f"a photo of a {name.replace('_', ' ')}." for name in TASKS[2].classnames]
    text = [
        naive.encode(
            weights["token_embedding.weight"][tokens], int(tokens.argmax()), weights, heads[0]
        )
        for tokens in clip.text_tower.tokenize(phrases)
    ]
    images = [naive_images.encode(x.double(), weights, heads[1]) for x in one_batch["img"]]
    scores = naive.logits(images, text, clip.logit_scale.double())
    output = trainer.forward(trainer.image_features(one_batch))
    close(output.logits, scores)
    loss = trainer.compute_loss(output, one_batch)["loss"]
    wanted = naive.loss(scores, one_batch["label"].tolist(), [0] * 3, [4])
    found = torch.autograd.grad(loss, own)
    expected = torch.autograd.grad(wanted, list(leaves.values()))
    for mine, theirs in zip(found, expected, strict=True):
        close(mine, theirs, 1e-4)


def test_the_second_stage_trains_the_classifier_alone(build, one_batch, close):
    trainer = make(build, "OPTIM.MAX_EPOCH", 4)
    trainer.set_model_mode("train")
    prompter = trainer.model.prompter
    assert trainer.total_steps == 8 and trainer.first_steps == 5
    trainer.train_step(one_batch, Step(0, 0, 100))
    assert not prompter.classifier.any() and not prompter.classifies
    norms = [p.detach().clone() for p in prompter.norms.parameters()]
    with torch.no_grad():
        text = torch.nn.functional.normalize(prompter.encode(), dim=-1).double()
        images = trainer.image_features(one_batch)["global"].double()
    trainer.train_step(one_batch, Step(0, 5, 100))
    for before, after in zip(norms, prompter.norms.parameters(), strict=True):
        assert torch.equal(before, after)
    leaf = text.clone().requires_grad_()
    scores = naive.logits(images, leaf, trainer.clip.logit_scale.double())
    optim = torch.optim.AdamW([leaf], lr=trainer.learning_rate(5), weight_decay=0.01)
    naive.loss(scores, one_batch["label"].tolist(), [0] * 3, [4]).backward()
    optim.step()
    close(prompter.classifier.detach(), leaf.detach(), 1e-4)


def test_it_starts_as_zero_shot_and_clip_stays(build, one_batch):
    trainer = make(build, f"{KEY}.TEMPLATE", "")
    assert_starts_as_zero_shot_and_clip_stays(trainer, build, one_batch)
    assert trainer.model.prompter.classifies


def test_each_stage_has_a_cosine(build):
    trainer = make(build, "DATASET.NUM_SHOTS", 2, steps=10)
    assert trainer.total_steps == 20 and trainer.first_steps == 12 and trainer.max_epoch == 10
    rates = [trainer.learning_rate(i) for i in range(21)]
    assert rates[:12] == [cosine(i, 12, 0.002, 1e-6) for i in range(12)]
    assert rates[12:20] == [cosine(i, 8, 0.002, 1e-6) for i in range(8)]
    assert rates[20] == 0


def test_other_classes_are_scored_by_the_tuned_text_tower(build, tmp_path):
    trained = make(build)
    trained.train()
    other = build("TwoStage", *VIT, "DATASET.SUBSAMPLE_TASKS", "task0", f"{KEY}.ITERATIONS", 0)
    other.load_model(tmp_path / "run")
    mine, theirs = trained.model.prompter, other.model.prompter
    assert mine.classifies and not theirs.classifies
    for a, b in zip(mine.norms.parameters(), theirs.norms.parameters(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        torch.testing.assert_close(theirs(None, torch.empty(0)), theirs.encode())
    same = make(build, output=tmp_path / "same")
    same.load_model(tmp_path / "run")
    assert same.model.prompter.classifies
    assert same.test() == trained.test()
    with pytest.raises(UserError, match="does not fit"):
        convolutional = ("MODEL.BACKBONE.NAME", "tiny/random")
        build("TwoStage", *convolutional, *ONE, f"{KEY}.ITERATIONS", 0).load_model(tmp_path / "run")


@pytest.mark.parametrize(("share", "classifies"), [(1.0, False), (0.0, True)])
def test_one_stage_alone(build, share, classifies):
    trainer = make(build, f"{KEY}.FIRST_STAGE", share)
    start = [p.detach().clone() for p in trainer.model.prompter.norms.parameters()]
    trainer.train()
    assert trainer.model.prompter.classifies == classifies
    moved = [
        not torch.equal(a, b)
        for a, b in zip(start, trainer.model.prompter.norms.parameters(), strict=True)
    ]
    assert any(moved) != classifies


def test_norms_of_a_tower_in_half_precision_learn_in_fp32():
    """On a GPU, torch's layer norm refuses weights of another type than its input's."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tower = torch.nn.Sequential(torch.nn.LayerNorm(8)).half().to(device)
    (own,) = norm_copies(tower).values()
    assert all(p.dtype == torch.float32 and p.requires_grad for p in own.parameters())
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).half().to(device)
    assert torch.equal(own(x), torch.nn.functional.layer_norm(x.float(), (8,)).half())
