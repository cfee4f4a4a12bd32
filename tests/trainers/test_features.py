"""Stored image features give what the images give, and only for the image they are of."""

import shutil

import pytest
import torch
from PIL import Image

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, load_checkpoint
from tests.conftest import toy_class
from trainers._features import _open_store

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
    assert "passing over the unreadable feature file" in (tmp_path / "b" / "log.txt").read_text()


def test_another_backbone_or_transform_is_another_store(build, store, tmp_path):
    for transforms in ("('normalize',)", "()"):
        options = (*store, "FEATURES.MODE", "test", "INPUT.TRANSFORMS", transforms)
        next(iter(build("MTCoOpHard", *options).test_loader))
    assert len({path.parent for path in files(tmp_path)}) == 2


def test_unknown_mode(build):
    with pytest.raises(UserError, match="must be one of off, test, full; got 'all'"):
        build("MTCoOpHard", "FEATURES.MODE", "all")
