"""Stored image features give what the images give, and only for the image they are of."""

import os
import shutil
import time

import pytest
import torch
from PIL import Image

from clip import CLIP, load_backbone
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, load_checkpoint
from prompting.feature_encoder import FeatureEncoder
from prompting.prompter import Prompter
from prompting.stored_features import _open_digests, _open_store
from tests.conftest import toy_class
from trainers._base import PromptTrainer

DRAWN = ("INPUT.TRANSFORMS", "('random_resized_crop', 'random_flip', 'normalize')")


@pytest.fixture
def store(tmp_path):
    """The options of a feature store of this test."""
    return ("FEATURES.DIR", str(tmp_path / "features"))


@pytest.fixture
def own_toy(toy_folder, tmp_path):
    """A toy suite "OwnToy" whose images may be changed."""
    folder = tmp_path / "images"
    shutil.copytree(toy_folder, folder)
    DATASET_REGISTRY.register()(toy_class("OwnToy", folder))
    yield folder
    DATASET_REGISTRY._classes.pop("OwnToy")


def files(tmp_path):
    return sorted((tmp_path / "features").rglob("*.safetensors"))


def ctx_of(folder):
    return load_checkpoint(folder / "prompt_learner" / "model.pth.tar-2")["state_dict"][
        "prompts.ctx"
    ]


def forget():
    """Read stores from their folders again, as another process would."""
    _open_store.cache_clear()
    _open_digests.cache_clear()


@pytest.mark.parametrize("transforms", [(), DRAWN])
def test_modes_agree(run, tmp_path, store, transforms):
    found, weights = {}, {}
    for mode in ("off", "test", "full", "full again"):
        forget()
        output = tmp_path / mode
        choice = ("FEATURES.MODE", mode.split()[0])
        found[mode] = run("MTCoOpHard", *store, *choice, *transforms, output=output)
        weights[mode] = ctx_of(output)
    for mode in ("test", "full", "full again"):
        assert found[mode]["tasks"] == found["off"]["tasks"]
        assert found[mode]["hashes"] == found["off"]["hashes"]
        distance = (weights[mode] - weights["off"]).norm() / weights["off"].norm()
        assert distance <= 1e-4
    assert torch.equal(weights["full again"], weights["full"])


def test_a_pass_is_stored_once(run, tmp_path, store):
    full = (*store, "FEATURES.MODE", "full")
    run("MTCoOpHard", *full, output=tmp_path / "a")
    before = [(path, path.stat().st_mtime_ns) for path in files(tmp_path)]
    assert len(before) == 2  # training images, which are not augmented here, and test images
    forget()
    run("MTCoOpHard", *full, output=tmp_path / "b")
    run("CoOp", *full, output=tmp_path / "c")
    assert [(path, path.stat().st_mtime_ns) for path in files(tmp_path)] == before


def test_every_epoch_has_its_views(run, tmp_path, store):
    full = (*store, *DRAWN, "FEATURES.MODE", "full", "OPTIM.MAX_EPOCH", 4)
    run("MTCoOpHard", *full, output=tmp_path / "a")
    assert len(files(tmp_path)) == 4 + 1


def test_views_are_used_in_turn(run, tmp_path, store):
    full = (*store, *DRAWN, "FEATURES.MODE", "full", "FEATURES.VIEWS", 2, "OPTIM.MAX_EPOCH", 5)
    run("MTCoOpHard", *full, output=tmp_path / "a")
    assert len(files(tmp_path)) == 2 + 1


def test_computing_features_draws_no_random_number(build, store):
    trainer = build("MTCoOpHard", *store, "FEATURES.MODE", "full")
    before = torch.get_rng_state()
    batch = next(iter(trainer.train_loader_x))
    assert set(batch) == {"feat", "label", "task", "domain", "index", "impath"}
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_are_those_of_the_images(build, store):
    drawn = {}
    for mode in ("off", "full"):
        trainer = build("MTCoOpHard", *store, *DRAWN, "FEATURES.MODE", mode)
        drawn[mode] = []
        for epoch in (0, 3):
            trainer.train_loader_x.set_epoch(epoch)
            for batch in trainer.train_loader_x:
                feat = trainer.image_features(batch)["global"]
                drawn[mode].append((batch["impath"], batch["label"], batch["task"], feat))
    assert len(drawn["full"]) == len(drawn["off"]) == 2 * (36 // 8)
    for mine, theirs in zip(drawn["full"], drawn["off"], strict=True):
        assert mine[0] == theirs[0]
        assert torch.equal(mine[1], theirs[1])
        assert torch.equal(mine[2], theirs[2])
        torch.testing.assert_close(mine[3], theirs[3], rtol=1e-4, atol=1e-5)


def test_a_changed_image_is_computed_again(run, build, own_toy, tmp_path, store):
    full = (*store, "FEATURES.MODE", "full")
    run("MTCoOpHard", *full, dataset="OwnToy", output=tmp_path / "a")
    before = len(files(tmp_path))
    changed = own_toy / "0_0_6.png"  # of the test images
    Image.new("RGB", (32, 32), (250, 10, 130)).save(changed)
    forget()
    trainer = build("MTCoOpHard", *full, dataset="OwnToy")
    features = {
        path: feat
        for batch in trainer.test_loader
        for path, feat in zip(batch["impath"], batch["feat"], strict=True)
    }
    assert len(files(tmp_path)) == before + 1
    plain = build("MTCoOpHard", "FEATURES.MODE", "off", dataset="OwnToy")
    for batch in plain.test_loader:
        found = plain.image_features(batch)["global"]
        for path, feat in zip(batch["impath"], found, strict=True):
            torch.testing.assert_close(features[path], feat, rtol=1e-4, atol=1e-5)


def test_a_missing_image_is_named(build, own_toy, store):
    (own_toy / "0_0_6.png").unlink()
    trainer = build("MTCoOpHard", *store, "FEATURES.MODE", "full", dataset="OwnToy")
    with pytest.raises(UserError, match=r"cannot read the image .*0_0_6\.png"):
        trainer.test()


@pytest.mark.parametrize("damage", ["cut", "emptied", "replaced"])
def test_a_broken_file_is_passed_over(run, tmp_path, store, damage, capsys):
    full = (*store, "FEATURES.MODE", "full")
    expected = run("MTCoOpHard", *full, output=tmp_path / "a")
    for path in files(tmp_path):
        content = path.read_bytes()
        broken = {"cut": content[:-100], "emptied": b"", "replaced": b"no tensors" * 50}
        path.write_bytes(broken[damage])
    forget()
    found = run("MTCoOpHard", *full, output=tmp_path / "b")
    assert found["tasks"] == expected["tasks"]
    assert "ignoring the unreadable feature file" in (tmp_path / "b" / "log.txt").read_text()


def test_another_backbone_or_transform_is_another_store(build, store, tmp_path):
    for transforms in ("('normalize',)", "()"):
        options = (*store, "FEATURES.MODE", "test", "INPUT.TRANSFORMS", transforms)
        next(iter(build("MTCoOpHard", *options).test_loader))
    assert len({path.parent for path in files(tmp_path)}) == 2


def test_unknown_mode(build):
    with pytest.raises(UserError, match=r"FEATURES.MODE takes .*; got 'all'"):
        build("MTCoOpHard", "FEATURES.MODE", "all")


class Free(Prompter):
    """A learned vector per class."""

    def __init__(self, classes, width):
        super().__init__()
        self.weight = torch.nn.Parameter(0.1 * torch.randn(classes, width))

    def forward(self, text, image_features, class_mask=None):
        return self.weight


class Patches(PromptTrainer):
    """A method that reads two outputs of the image tower."""

    KEY = "PATCHES"
    DEFAULTS = dict(PREC="fp32")
    image_outputs = frozenset({"global", "local"})
    suite = "joint"

    def build_prompter(self, options, space, text):
        return Free(space.num_classes, text.out_dim)

    def forward(self, features, class_mask=None, text_features=None):
        both = features["global"].float() + features["local"].float().mean(dim=1)  # (B, e)
        return self.model.forward_features({"global": both}, class_mask)


@pytest.fixture
def patches(register_trainer, monkeypatch):
    """Registers a method that reads local outputs, and gives the tower some."""
    whole = CLIP.encode_outputs

    def with_local(self, images, outputs=frozenset({"global"})):
        found = whole(self, images, frozenset({"global"}))
        if "local" in outputs:
            weights = torch.linspace(-1, 1, 5)[:, None]
            found["local"] = (
                found["global"][:, None] * weights + images.mean((1, 2, 3))[:, None, None]
            )
        return {name: found[name] for name in outputs}

    monkeypatch.setattr(CLIP, "encode_outputs", with_local)
    return register_trainer(Patches)


def test_outputs_are_kept_apart(run, build, patches, store, tmp_path):
    full = (*store, "FEATURES.MODE", "full")
    found = {}
    for mode in ("off", "full", "full again"):
        forget()
        content = run("Patches", *store, "FEATURES.MODE", mode.split()[0], output=tmp_path / mode)
        found[mode] = content["tasks"]
    assert found["off"] == found["full"] == found["full again"]
    before = files(tmp_path)
    assert len(before) == 4  # training and test images, two outputs each
    run("MTCoOpHard", *full, output=tmp_path / "other")
    assert files(tmp_path) == before  # which reads the global ones
    batch = next(iter(build("Patches", *full).train_loader_x))
    assert (batch["feat"].shape, batch["local"].shape) == ((8, 64), (8, 5, 64))


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def features_of(trainer):
    """Features of the test images by path."""
    return {
        path: feat
        for batch in trainer.test_loader
        for path, feat in zip(batch["impath"], trainer.image_features(batch)["global"], strict=True)
    }


def test_features_and_learned_weights_are_those_of_the_images(build, run, tmp_path, store):
    plain = features_of(build("MTCoOpHard"))
    kept = features_of(build("MTCoOpHard", *store, "FEATURES.MODE", "full"))
    assert set(kept) == set(plain)
    assert relative(torch.stack(list(kept.values())), torch.stack(list(plain.values()))) <= 1e-6
    steps = ("OPTIM.MAX_EPOCH", 5, "OPTIM.LR", 0.02, *DRAWN)  # 4 steps in an epoch
    learned = {}
    for mode in ("off", "full"):
        run("MTCoOp", *store, "FEATURES.MODE", mode, *steps, output=tmp_path / mode)
        path = tmp_path / mode / "prompt_learner" / "model.pth.tar-5"
        state = load_checkpoint(path)["state_dict"]
        learned[mode] = torch.cat([value.flatten() for value in state.values()])
    assert relative(learned["full"], learned["off"]) <= 1e-4


def test_half_precision_is_another_store(build, store, tmp_path):
    full = (*store, "FEATURES.MODE", "full")
    whole = features_of(build("MTCoOpHard", *full))
    half = features_of(build("MTCoOpHard", *full, "FEATURES.DTYPE", "fp16"))
    a, b = torch.stack(list(half.values())), torch.stack(list(whole.values()))
    assert a.dtype == torch.float16
    assert 0 < relative(a.float(), b) < 1e-3
    sizes = sorted(path.stat().st_size for path in files(tmp_path))
    assert sizes[1] - sizes[0] == pytest.approx(a.numel() * 2, rel=0.1)


def rewrite(path, colour, times=None):
    """Replace an image by one of the same size in bytes; returns whether it has its size."""
    before = path.stat()
    Image.new("RGB", (32, 32), colour).save(path, format="BMP")
    if times:
        os.utime(path, ns=times)
    return path.stat().st_size == before.st_size


@pytest.mark.parametrize("stamp", ["as it is", "put back"])
def test_content_changed_under_an_unchanged_size(build, own_toy, store, stamp):
    options = ("MTCoOpHard", *store, "FEATURES.MODE", "test")
    path = own_toy / "0_0_6.png"
    rewrite(path, (1, 2, 3))
    old = time.time_ns() - 60 * 10**9
    os.utime(path, ns=(old, old))
    first = features_of(build(*options, dataset="OwnToy"))
    assert rewrite(path, (250, 90, 10), (old, old) if stamp == "put back" else None)
    second = features_of(build(*options, dataset="OwnToy"))
    expected = features_of(build("MTCoOpHard", dataset="OwnToy"))
    assert not torch.equal(first[str(path)], second[str(path)])
    torch.testing.assert_close(second[str(path)], expected[str(path)], rtol=1e-4, atol=1e-5)


def test_an_image_that_changes_while_it_is_encoded(build, own_toy, store, monkeypatch):
    path = own_toy / "0_0_6.png"
    trainer = build("MTCoOpHard", *store, "FEATURES.MODE", "test", dataset="OwnToy")
    complete = FeatureEncoder.complete

    def change_first(*args):
        if not changed:
            changed.append(rewrite(path, (250, 90, 10)))
        return complete(*args)

    changed = []
    monkeypatch.setattr(FeatureEncoder, "complete", change_first)
    found = features_of(trainer)
    expected = features_of(build("MTCoOpHard", dataset="OwnToy"))
    torch.testing.assert_close(found[str(path)], expected[str(path)], rtol=1e-4, atol=1e-5)


def test_weights_precision_and_type_are_in_the_key(build, store):
    loader = build("MTCoOpHard", *store, "FEATURES.MODE", "full").test_loader
    (key,) = loader.keys.values()
    assert key["weights"] == load_backbone("tiny/random").weights_hash
    assert key["precision"] == "fp32"
    half = build("MTCoOpHard", *store, "FEATURES.MODE", "full", "FEATURES.DTYPE", "fp16")
    assert half.test_loader.keys["global"]["dtype"] == "fp16"


def test_the_size_is_logged_before_it_starts(run, tmp_path, store):
    views = ("FEATURES.VIEWS", 3, "OPTIM.MAX_EPOCH", 5, *DRAWN)
    run("MTCoOpHard", *store, *views, "FEATURES.MODE", "full")
    log = (tmp_path / "run" / "log.txt").read_text()
    size = (3 * 36 + 27) * 64 * 4 / 2**20
    said = f"Image features: at most {size:,.1f} MiB in {tmp_path / 'features'}: 108 of training"
    assert said in log
    assert log.index(said) < log.index("Computing the features of 36 images")


def test_the_least_recently_used_are_deleted(run, tmp_path, store):
    limit = ("FEATURES.LIMIT_GB", 3 * 36 * 64 * 4 * 1e-9)  # about three passes of two epochs
    views = (*DRAWN, "OPTIM.MAX_EPOCH", 5, "TEST.NO_TEST", True)
    run("MTCoOpHard", *store, *limit, *views, "FEATURES.MODE", "full")
    left = [path.parent.name for path in files(tmp_path)]
    assert 0 < len(left) < 5
    assert "1-4" in left
    assert "1-0" not in left
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "exceeds FEATURES.LIMIT_GB" in log
    assert "Deleted the features in" in log


def test_a_folder_that_cannot_be_written_to(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    options = ("FEATURES.DIR", tmp_path / "file" / "features", "FEATURES.MODE", "full")
    content = run("MTCoOpHard", *options)
    assert content["status"] == "complete"
    assert "they stay in memory" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("DTYPE", "fp8", "FEATURES.DTYPE takes .*; got 'fp8'"),
        ("LIMIT_GB", 0.0, "FEATURES.LIMIT_GB takes .* above 0; got 0.0"),
    ],
)
def test_other_options(build, key, value, message):
    with pytest.raises(UserError, match=message):
        build("MTCoOpHard", f"FEATURES.{key}", value)
