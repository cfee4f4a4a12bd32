"""CLIP-Adapter: equations, gradients, search of the ratio."""

import pytest
import torch

from prompting.prompter import ModelOutput
from tests.reference import heads as naive
from tests.reference import prompts as naive_clip
from tests.trainers._heads import ONE, E, drawn, judged, templates
from trainers.clip_adapter import RATIOS


def test_adapter_values_and_gradients(build, close):
    trainer = build("CLIPAdapter", "TRAINER.CLIP_ADAPTER.RATIO", 0.7, *ONE)
    weights = [p for p in trainer.model.prompter.parameters() if p.requires_grad]
    assert [tuple(w.shape) for w in weights] == [(16, E), (E, 16)]
    leaves = [w.detach().double().requires_grad_() for w in weights]
    images = drawn(4)
    adapted = naive.adapt(images.double(), *leaves, 0.7)
    expected = naive_clip.logits(adapted, templates(trainer), trainer.clip.logit_scale.double())
    logits = trainer.forward({"global": images}).logits
    close(logits, expected)
    batch = {"label": torch.tensor([0, 2, 1, 1]), "task": torch.zeros(4, dtype=torch.long)}
    loss = trainer.compute_loss(ModelOutput(logits), batch)["loss"]
    wanted = naive_clip.loss(expected, batch["label"].tolist(), [0] * 4, [3])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    theirs = torch.autograd.grad(wanted, leaves)
    for mine, other in zip(torch.autograd.grad(loss, weights), theirs, strict=True):
        close(mine, other)


def test_an_adapter_that_adds_nothing_is_zero_shot(build):
    trainer = build("CLIPAdapter", *ONE)
    images = {"global": drawn(20)}
    expected = build("ZeroshotCLIP", *ONE).forward(images).logits
    assert not torch.allclose(trainer.forward(images).logits, expected)
    with torch.no_grad():
        trainer.model.prompter.adapter[2].weight.zero_()
    torch.testing.assert_close(trainer.forward(images).logits, expected)


def test_ratio_is_chosen_on_validation_images(build):
    trainer = build("CLIPAdapter", "TRAINER.CLIP_ADAPTER.SEARCH", "True", *ONE)
    prompter, images = trainer.model.prompter, drawn(40)
    with torch.no_grad():  # text and an adapter so strong that the ratios differ
        prompter.adapter[2].weight.copy_(drawn(E)[:, :16])
        prompter.features.copy_(drawn(3, 2))
    weights = [p.detach().double() for p in prompter.parameters()]
    text, scale = drawn(3, 2).double(), trainer.clip.logit_scale.double()
    rows = {
        ratio: naive_clip.logits(naive.adapt(images.double(), *weights, ratio), text, scale)
        for ratio in RATIOS
    }
    label = rows[0.6].argmax(dim=1)
    trainer.split_features = lambda split: ({"global": images}, label, None)
    trainer.tune()
    found = [judged(rows[ratio], label, 0) for ratio in RATIOS]
    assert len(set(found)) > 5
    assert prompter.ratio.item() == pytest.approx(RATIOS[found.index(100.0)])
