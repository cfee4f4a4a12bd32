"""The naive sides of the benchmarks do what the fast sides do."""

from dataclasses import replace

import pytest
import torch

from benchmarks import gpu, store, whole_sweep
from benchmarks._plain import plain_clip, plain_features


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def space():
    return gpu.make_space(gpu.SMALL.classes)


@pytest.mark.parametrize("variant", [*gpu.VARIANTS, *gpu.ONE_TASK])
def test_the_naive_step_has_the_same_loss_and_gradient(variant, space):
    size = gpu.SMALL
    if variant in gpu.ONE_TASK:
        size = replace(size, classes=(7,))
        space = gpu.make_space(size.classes)
    trainer = gpu.make_trainer(variant, "tiny/random", size, space, *gpu.ON_CPU)
    batch = gpu.make_batch(trainer, size)
    plain = gpu.make_plain(trainer)
    loss = plain.loss(batch["img"], batch["label"], batch["task"])
    loss.backward()
    before = {key: p.detach().clone() for key, p in trainer.model.prompter.named_parameters()}
    found = trainer.train_step(batch, gpu.STEP)
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-5, atol=1e-5)
    assert set(plain.learned) == {gpu.NAMES[key] for key in before}
    for key, param in trainer.model.prompter.named_parameters():
        expected = plain.learned[gpu.NAMES[key]].grad
        assert expected.norm() > 0
        assert relative(param.grad, expected) <= 1e-4
        assert not torch.equal(param, before[key])


def test_the_naive_features_are_those_of_the_loader(tmp_path):
    paths = store.make_photos(tmp_path / "photos", 70)
    trainer = store.make_trainer("tiny/random", paths, tmp_path / "store")
    clip_model = trainer.clip
    model = plain_clip(clip_model.config, clip_model.state_dict())
    mean, std = clip_model.image_mean, clip_model.image_std
    expected = plain_features(model, paths, 32, mean, std, clip_model.interpolation)
    cold = store.stored_test_features(trainer)
    assert relative(cold, expected) <= 1e-5
    assert torch.equal(store.stored_test_features(trainer), cold)


def test_the_shape_is_general_10s():
    assert (len(gpu.CLASSES), sum(gpu.CLASSES), gpu.STEPS) == (10, 1191, 29_750)
    space = gpu.make_space(gpu.CLASSES)
    assert space.num_classes == 1191
    words = [len(name.split()) for name in space.classnames]
    assert 1.5 < sum(words) / len(words) < 3.5


@pytest.mark.slow
def test_rows():
    rows = gpu.run(small=True)
    assert len(rows) == 3 * len(gpu.VARIANTS)  # images, warm, CUDA graphs
    rows += store.run(small=True)
    assert len(rows) == 3 * len(gpu.VARIANTS) + 2
    for row in rows:
        assert set(row) == {"what", "naive", "ours", "ratio", "notes"}
        assert row["ratio"] == pytest.approx(row["naive"] / row["ours"])
        assert row["naive"] > 0


@pytest.mark.slow
def test_the_naive_sweep_has_the_same_accuracies(tmp_path):
    words = whole_sweep.write_plan(tmp_path, [2], [1], epochs=3)
    words += ["OPTIM.LR", "0.1"]
    expected = whole_sweep.naive(words)
    found = whole_sweep.ours(words)
    assert len(found) == 4 * 7 and len(set(found)) > 10
    assert found == pytest.approx(expected, abs=0.12)  # one of 897 images
