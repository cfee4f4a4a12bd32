"""A stored feature belongs to one image content, backbone, precision and transform."""

import os
import time

import pytest
import torch
from PIL import Image

from clip import load_backbone
from dassl.utils import UserError
from prompting.feature_encoder import FeatureEncoder
from tests.prompting._features import features_of, files, forget, relative


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
