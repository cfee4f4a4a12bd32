"""Tip-Adapter and Tip-Adapter-F: equations, gradients, search, augmented views."""

import pytest
import torch

from dassl.data import DatasetWrapper
from prompting.prompter import ModelOutput
from tests.reference import heads as naive
from tests.reference import prompts as naive_clip
from tests.trainers._heads import ONE, drawn, judged, templates, training


def test_tip_values_and_gradients(build, close):
    trainer = build("TipAdapter", "TRAINER.TIP.FINETUNE", "True", *ONE)
    trainer.fit()
    cache, images = trainer.model.prompter, drawn(4)
    cache.alpha.fill_(2.5), cache.beta.fill_(3.0)
    x, y = training(trainer)  # the toy images are not augmented: ten views are alike
    close(cache.keys, torch.stack([naive.unit(v) for v in x.double()]))
    keys = cache.keys.detach().double().requires_grad_()
    scale = trainer.clip.logit_scale.double()
    expected = naive.tip(images.double(), templates(trainer), keys, y.tolist(), 2.5, 3.0, scale)
    logits = trainer.forward({"global": images}).logits
    close(logits, expected)
    batch = {"label": torch.tensor([0, 2, 1, 1]), "task": torch.zeros(4, dtype=torch.long)}
    loss = trainer.compute_loss(ModelOutput(logits), batch)["loss"]
    wanted = naive_clip.loss(expected, batch["label"].tolist(), [0] * 4, [3])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    close(torch.autograd.grad(loss, cache.keys)[0], torch.autograd.grad(wanted, keys)[0])


def test_a_cache_of_no_weight_is_zero_shot(build):
    tip = build("TipAdapter", "TRAINER.TIP.ALPHA", 0, "TRAINER.TIP.SEARCH", "False", *ONE)
    tip.fit()
    images = {"global": drawn(20)}
    expected = build("ZeroshotCLIP", *ONE).forward(images).logits
    assert torch.equal(tip.forward(images).logits, expected)


@pytest.mark.parametrize("t", [0, 1])  # overall_acc, mean_acc
def test_tip_search(build, t):
    sizes = ("ALPHA_STEPS", 4, "BETA_STEPS", 6, "ALPHA_MAX", 5.0, "BETA_MAX", 9.0)
    words = [w if i % 2 else f"TRAINER.TIP.{w}" for i, w in enumerate(sizes)]
    trainer = build("TipAdapter", *words, "DATASET.SUBSAMPLE_TASKS", f"task{t}")
    cache, images = trainer.model.prompter, drawn(30)
    with torch.no_grad():  # text and keys of their own, and labels that one pair gets right
        cache.keys.copy_(torch.nn.functional.normalize(drawn(len(cache.keys), 1), dim=-1))
        near = drawn(1, 3) + 0.15 * drawn(len(cache.features), 2)  # so that the votes count
        cache.features.copy_(torch.nn.functional.normalize(near, dim=-1))
        cache.label.copy_(torch.arange(len(cache.label)) % len(cache.features))
    keys, text = cache.keys.double(), cache.features.double()
    scale = trainer.clip.logit_scale.double()

    def rows(alpha, beta):
        return naive.tip(images.double(), text, keys, cache.label.tolist(), alpha, beta, scale)

    label = rows(2.55, 3.067).argmax(dim=1)
    tried = []

    def metric(alpha, beta):
        tried.append(judged(rows(alpha, beta), label, t))
        return tried[-1]

    best, chosen = naive.tip_search(metric, (5.0, 9.0), (4, 6))
    assert len(tried) == 24 and len(set(tried)) > 3
    trainer.split_features = lambda split: ({"global": images}, label, None)
    trainer.tune()
    assert (cache.alpha.item(), cache.beta.item()) == pytest.approx(chosen)
    assert judged(trainer.forward({"global": images}).logits, label, t) == pytest.approx(best)


def test_training_moves_the_keys_and_no_label(build):
    opts = ("TRAINER.TIP.SEARCH", "False", "TRAINER.TIP.FINETUNE", "True", "OPTIM.LR", 0.1)
    trainer = build("TipAdapter", *opts, *ONE)
    trainer.fit()
    cache = trainer.model.prompter
    start, label = cache.keys.detach().clone(), cache.label.clone()
    trainer.train()
    assert not torch.equal(cache.keys, start)
    assert torch.equal(cache.label, label)


@pytest.mark.parametrize("mode", ["off", "full"])
def test_views_are_averaged(build, close, tmp_path, mode):
    store = ("FEATURES.MODE", mode, "FEATURES.DIR", str(tmp_path / "features"))
    drawn_crops = ("INPUT.TRANSFORMS", "('random_resized_crop', 'random_flip', 'normalize')")
    trainer = build("TipAdapter", *store, *drawn_crops, *ONE)
    views = DatasetWrapper(trainer.cfg, trainer.dataset.train_x, is_train=True)
    total = 0
    for epoch in range(3):
        views.set_epoch(epoch)
        images = torch.stack([views[i]["img"] for i in range(len(views))])
        total = total + trainer.model.encode_image(images)["global"].double()
    found, label, _ = trainer.split_features("train", views=3)
    close(found["global"], total / 3)
    assert label.tolist() == [item.label for item in trainer.dataset.train_x]
    plain, _, _ = trainer.split_features("train")
    assert not torch.allclose(plain["global"], found["global"], rtol=1e-2)


def test_each_stored_view_counts_once(build, close, tmp_path, capsys):
    store = ("FEATURES.MODE", "full", "FEATURES.DIR", tmp_path / "features", "FEATURES.VIEWS", 2)
    trainer = build("TipAdapter", *store, "INPUT.TRANSFORMS", "('random_flip', 'normalize')", *ONE)
    both, _, _ = trainer.split_features("train", views=2)
    five, _, _ = trainer.split_features("train", views=5)
    close(five["global"], both["global"].double())
    assert "2 views of each image instead of 5" in capsys.readouterr().out


@pytest.mark.parametrize(("transforms", "passes"), [("normalize", 1), ("random_flip", 3)])
def test_views_that_are_alike_are_encoded_once(build, monkeypatch, transforms, passes):
    words = ("INPUT.TRANSFORMS", f"('{transforms}',)", "TRAINER.TIP.VIEWS", 3)
    trainer = build("TipAdapter", "DATASET.SUBSAMPLE_TASKS", "task0", *words)
    encode, seen = trainer.image_features, []
    monkeypatch.setattr(trainer, "image_features", lambda b: seen.append(b["index"]) or encode(b))
    trainer.split_features("train", 3)
    images = len(trainer.dataset.train_x)
    assert torch.cat(seen).bincount(minlength=images).tolist() == [passes] * images
