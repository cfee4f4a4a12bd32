"""MMA against its equation; the scale of its gradients, counts, refusals."""

import pytest
import torch

from dassl.utils import UserError
from tests.conftest import TASKS
from tests.reference import images as naive_images
from tests.reference import mma as naive_mma
from tests.reference import prompts as naive
from tests.trainers._adapted import ONE, VIT, assert_clip_stays
from trainers.mma import SharedAdapter

KEY = "TRAINER.MMA"
TWO = (f"{KEY}.START", 1, f"{KEY}.END", 2)
PHRASES = [f"a photo of a {name.replace('_', ' ')}." for name in TASKS[2].classnames]


@pytest.fixture
def one_batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    return {"img": images, "label": torch.tensor([0, 2, 3]), "task": torch.zeros(3).long()}


def make(build, *options, **how):
    trainer = build("MMA", *VIT, *ONE, *TWO, *options, **how)
    trainer.set_model_mode("train")
    return trainer


def layers_of(adapter, tower):
    return adapter.down[tower], adapter.shared, adapter.up[tower]


def naive_scores(trainer, images, leaves, scale):
    """Logits (B, C), one image, token and head at a time."""
    clip = trainer.clip
    weights = {key: value.double() for key, value in clip.state_dict().items()}
    beside = {
        tower: [
            lambda x, a=adapter: naive_mma.addition(x, [leaves[layer] for layer in a], scale)
            for adapter in [layers_of(a, tower) for a in trainer.model.prompter.adapters]
        ]
        for tower in ("text", "image")
    }
    text, heads = [], clip.config["text_cfg"]["heads"]
    for tokens in clip.text_tower.tokenize(PHRASES):
        x = weights["token_embedding.weight"][tokens]
        text.append(naive.encode(x, int(tokens.argmax()), weights, heads, beside=beside["text"]))
    heads = clip.config["vision_cfg"]["width"] // clip.config["vision_cfg"]["head_width"]
    found = [
        naive_images.encode(image.double(), weights, heads, beside=beside["image"])
        for image in images
    ]
    return naive.logits(found, torch.stack(text), clip.logit_scale.double())


def test_equations(build, one_batch, close):
    """Logits and loss; the gradients of the weights are those of SCALE 1 behind the adapter."""
    scale = 0.2
    trainer = make(build, f"{KEY}.DIM", 8, f"{KEY}.SCALE", scale)
    linears = [m for m in trainer.model.prompter.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linears) == 2 * 5  # two blocks: Down and Up of each tower, and what they share
    with torch.no_grad():
        for layer in linears:
            layer.bias.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(len(linears)))
    leaves = {
        layer: tuple(p.detach().double().requires_grad_() for p in (layer.weight, layer.bias))
        for layer in linears
    }
    scores = naive_scores(trainer, one_batch["img"], leaves, scale)
    output = trainer.forward(trainer.image_features(one_batch))
    close(output.logits, scores)
    loss = trainer.compute_loss(output, one_batch)["loss"]
    wanted = naive.loss(scores, one_batch["label"].tolist(), [0] * 3, [4])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    found = torch.autograd.grad(loss, [p for m in linears for p in (m.weight, m.bias)])
    expected = torch.autograd.grad(wanted, [leaf for pair in leaves.values() for leaf in pair])
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        close(mine, theirs / scale, 1e-4)


def test_the_gradient_of_the_input_has_the_scale(close):
    adapter = SharedAdapter((6, 4), 3, 0.01)
    x = torch.randn(5, 6, requires_grad=True)
    (found,) = torch.autograd.grad(adapter(x, "text").sum(), x)
    leaves = [(m.weight, m.bias) for m in layers_of(adapter, "text")]
    (expected,) = torch.autograd.grad(naive_mma.addition(x, leaves, 0.01).sum(), x)
    assert expected.abs().max() > 0
    close(found, expected)


def test_clip_stays_and_both_towers_learn(build):
    trainer = make(build)
    before = {key: value.clone() for key, value in trainer.model.prompter.state_dict().items()}
    assert_clip_stays(trainer)
    for key, value in trainer.model.prompter.state_dict().items():
        assert not torch.equal(value, before[key]), key


def test_published_count():
    """674,560 at ViT-B/16: 8 blocks, widths 512 and 768, 32 between."""
    with torch.device("meta"):
        adapter = SharedAdapter((512, 768), 32, 0.001)
    assert 8 * sum(p.numel() for p in adapter.parameters()) == 674_560


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("MODEL.BACKBONE.NAME", "tiny/random"), "image tower, but that of tiny/random has none"),
        ((f"{KEY}.END", 3), "MMA.END 3: the text tower of tiny-vit/random has 2 blocks"),
        ((f"{KEY}.START", 3), "MMA.START 3 is behind END 2"),
        ((f"{KEY}.SCALE", 0), "MMA.SCALE takes .*; got 0"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)
