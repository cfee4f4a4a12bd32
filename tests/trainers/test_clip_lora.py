"""CLIP-LoRA against its equations; identities, merging, steps, dropout, refusals."""

import math

import pytest
import torch

from clip.backbones import load_uncached
from dassl.engine import Step
from dassl.utils import UserError
from prompting.low_rank import LowRankUpdate, SeededDropout
from tests.conftest import TASKS
from tests.reference import images as naive_images
from tests.reference import lora
from tests.reference import prompts as naive
from tests.trainers._adapted import ONE, VIT, assert_starts_as_zero_shot_and_clip_stays
from trainers._by_steps import cosine

KEY = "TRAINER.CLIPLORA"
PHRASES = [f"a photo of a {name.replace('_', ' ')}." for name in TASKS[2].classnames]


def make(build, *options, dropout=0.0, steps=0, **how):
    words = (f"{KEY}.DROPOUT", dropout, f"{KEY}.ITERATIONS", steps)
    optim = ("OPTIM.NAME", "adamw", "OPTIM.WEIGHT_DECAY", 0.01)
    return build("CLIPLoRA", *VIT, *ONE, *words, *optim, *options, **how)


def spread(trainer):
    """Set every B far from 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for update in trainer.model.prompter.updates:
            update.up.copy_(0.2 * torch.randn(update.up.shape, generator=generator))


def naive_scores(trainer, images, leaves, scale):
    """Logits (B, C) from merged weights, one image, token and head at a time."""
    clip = trainer.clip
    weights = {key: value.double() for key, value in clip.state_dict().items()}
    names = [f"{path}.in_proj_weight" for path in trainer.model.prompter.paths]
    weights = lora.merged(weights, dict(zip(names, leaves, strict=True)), scale)
    text, tower = [], clip.text_tower
    for tokens in tower.tokenize(PHRASES):
        x = weights["token_embedding.weight"][tokens]
        heads = clip.config["text_cfg"]["heads"]
        text.append(naive.encode(x, int(tokens.argmax()), weights, heads))
    heads = clip.config["vision_cfg"]["width"] // clip.config["vision_cfg"]["head_width"]
    found = [naive_images.encode(image.double(), weights, heads) for image in images]
    return naive.logits(found, torch.stack(text), clip.logit_scale.double())


@pytest.fixture
def one_batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    return {"img": images, "label": torch.tensor([0, 2, 3]), "task": torch.zeros(3).long()}


def test_equations(build, one_batch, close):
    trainer = make(build, f"{KEY}.R", 3, f"{KEY}.ALPHA", 2.0)
    trainer.set_model_mode("train")
    spread(trainer)
    updates = trainer.model.prompter.updates
    assert len(updates) == 2 + 3  # blocks of the text and of the image tower
    leaves = [
        tuple(p.detach().double().requires_grad_() for p in (update.down, update.up))
        for update in updates
    ]
    scores = naive_scores(trainer, one_batch["img"], leaves, 2.0 / math.sqrt(3))
    output = trainer.forward(trainer.image_features(one_batch))
    close(output.logits, scores)
    loss = trainer.compute_loss(output, one_batch)["loss"]
    wanted = naive.loss(scores, one_batch["label"].tolist(), [0] * 3, [4])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    own = [p for update in updates for p in (update.down, update.up)]
    found = torch.autograd.grad(loss, own)
    expected = torch.autograd.grad(wanted, [leaf for pair in leaves for leaf in pair])
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        close(mine, theirs, 1e-4)


def test_zero_b_is_clip_and_clip_stays(build, one_batch):
    trainer = make(build, f"{KEY}.TEMPLATE", "")
    assert_starts_as_zero_shot_and_clip_stays(trainer, build, one_batch)
    assert all(update.up.abs().max() > 0 for update in trainer.model.prompter.updates)


def test_merged_weights_are_the_adapted_towers(build, one_batch):
    trainer = make(build)
    trainer.set_model_mode("eval")
    spread(trainer)
    plain = load_uncached("tiny-vit/random")
    plain.load_state_dict(trainer.model.prompter.merged_weights(trainer.clip))
    with torch.no_grad():
        mine = trainer.image_features(one_batch)["global"]
        torch.testing.assert_close(mine, plain.encode_image(one_batch["img"]))
        text = trainer.model.prompter.encode()
        torch.testing.assert_close(text, plain.text_tower.encode_text(PHRASES))


def test_recomputed_activations_give_the_same_gradients(build, one_batch, tmp_path):
    grads = []
    for recompute in (False, True):
        words = ("COMPUTE.IMAGE_CHECKPOINT", recompute)
        trainer = make(build, *words, dropout=0.5, output=tmp_path / str(recompute))
        trainer.set_model_mode("train")
        spread(trainer)
        trainer.train_step(one_batch, Step(0, 3, 100))
        grads.append([p.grad for p in trainer.model.prompter.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_is_of_the_input_and_of_the_step():
    """E of each output is that without dropout; the masks are a function of seed and step."""
    dropout = SeededDropout(0.25)
    torch.manual_seed(0)
    update = LowRankUpdate(8, 2, 0.5, ("q", "v"), dropout, place=1)
    with torch.no_grad():
        update.up.copy_(torch.randn(2, 8, 2))
    x, found = torch.randn(5, 8), []
    for step in range(400):
        dropout.step = step
        found.append(update(x))
    again = update(x)
    assert torch.equal(again, found[-1]) and not torch.equal(found[0], found[1])
    assert not again[:, 8:16].any()  # the keys
    update.eval()
    torch.testing.assert_close(torch.stack(found).mean(0), update(x), atol=0.1, rtol=0)
    torch.testing.assert_close(update(x), x @ update.weight().T)
    kept = dropout(torch.ones(10_000), 0)
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 4 / 3]))
    assert (kept == 0).float().mean() == pytest.approx(0.25, abs=0.02)


def test_steps_follow_from_the_shots(build):
    """18 steps of 2 per epoch; those of the last epoch that are too many change nothing."""
    trainer = make(build, "DATASET.NUM_SHOTS", 3, steps=5)
    assert trainer.total_steps == 15 and trainer.max_epoch == 8
    rates = []
    take = trainer.model_update
    trainer.model_update = lambda: (rates.append(trainer.get_current_lr()), take())
    states = []
    trainer.after_epoch = lambda: states.append(trainer.model.prompter.updates[0].up.clone())
    trainer.train()
    assert rates == [cosine(i, 15, 0.002, 1e-6) for i in range(16)]
    assert rates[0] == 0.002 and rates[14] < 3e-5 and rates[15] == 0
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR
    optim = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.002)
    expected = schedule(optim, 15, eta_min=1e-6)
    for rate in rates[:15]:
        assert rate == pytest.approx(optim.param_groups[0]["lr"])
        optim.step()
        expected.step()
    of_all = make(build, "DATASET.NUM_SHOTS", -1, steps=5)
    of_all.dataset.train_x.pop()
    assert of_all.total_steps == 5 * 4  # 15 images of 4 classes


@pytest.mark.parametrize(("encoder", "towers"), [("text", {"transformer"}), ("vision", {"visual"})])
def test_one_tower_alone(build, encoder, towers):
    trainer = make(build, f"{KEY}.ENCODER", encoder)
    assert {path.split(".")[0] for path in trainer.model.prompter.paths} == towers
    trainer.train()
    assert trainer.evaluator.tasks


def test_published_count():
    """184,320 at ViT-B/16: 12 blocks, A and B of q, k, v, rank 2, widths 768 and 512."""
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in LowRankUpdate(w, 2, 1, ("q", "k", "v"), None, 0).parameters())
            for w in (768, 512)
        ]
    assert 12 * sum(sizes) == 184_320


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("MODEL.BACKBONE.NAME", "tiny/random"), "vision tower, but that of tiny/random has none"),
        ((f"{KEY}.PARTS", "()"), "PARTS takes at least one"),
        ((f"{KEY}.PARTS", "('q', 'o')"), "PARTS takes .*'o'"),
        ((f"{KEY}.R", 0), "CLIPLORA.R takes .*; got 0"),
        ((f"{KEY}.DROPOUT", 1.0), "DROPOUT takes .*; got 1.0"),
        ((f"{KEY}.TEMPLATE", "a photo"), r"must hold \{\} once"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        build("CLIPLoRA", *VIT, *ONE, *options)
