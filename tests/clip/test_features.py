"""The store of features itself."""

import multiprocessing

import pytest
import torch
from safetensors.torch import save_file

from clip import load_backbone
from clip.features import ENCODE_BATCH, FeatureStore, encode_fixed, feature_key

KEY = {"weights": "w", "transform": "t"}


def test_what_was_added_is_there_again(tmp_path):
    store = FeatureStore(tmp_path, KEY)
    assert store.missing(["a", "b", "a"]) == ["a", "b"]
    store.add(["a", "b"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    store.add(["c"], torch.tensor([[5.0, 6.0]]))
    for found in (store, FeatureStore(tmp_path, KEY)):
        assert found.missing(["c", "a", "d"]) == ["d"]
        assert found.rows(["c", "a", "c"]).tolist() == [[5, 6], [1, 2], [5, 6]]


def test_another_key_is_another_store(tmp_path):
    FeatureStore(tmp_path, KEY).add(["a"], torch.ones(1, 2))
    assert FeatureStore(tmp_path, {**KEY, "transform": "u"}).missing(["a"]) == ["a"]


def test_half_precision_is_kept(tmp_path):
    FeatureStore(tmp_path, KEY).add(["a"], torch.tensor([[0.1]]).half())
    rows = FeatureStore(tmp_path, KEY).rows(["a"])
    assert rows.dtype == torch.float16


def test_names_and_features_must_match(tmp_path):
    with pytest.raises(ValueError, match="2 names for 1 features"):
        FeatureStore(tmp_path, KEY).add(["a", "b"], torch.ones(1, 2))


@pytest.mark.parametrize("metadata", [None, {"names": "[1"}, {"other": "[]"}, {"names": '["a"]'}])
def test_foreign_files_are_passed_over(tmp_path, capsys, metadata):
    store = FeatureStore(tmp_path, KEY)
    store.folder.mkdir(parents=True)
    save_file({"features": torch.ones(3, 2)}, store.folder / "x.safetensors", metadata)
    assert FeatureStore(tmp_path, KEY).missing(["a"]) == ["a"]
    assert "passing over the unreadable feature file" in capsys.readouterr().out


def test_features_of_another_width_are_passed_over(tmp_path, capsys):
    store = FeatureStore(tmp_path, KEY)
    store.add(["a"], torch.ones(1, 2))
    save_file({"features": torch.ones(1, 5)}, store.folder / "zz.safetensors", {"names": '["b"]'})
    found = FeatureStore(tmp_path, KEY)
    assert found.missing(["a", "b"]) == ["b"]
    assert "passing over" in capsys.readouterr().out


def test_no_temporary_file_is_left(tmp_path):
    store = FeatureStore(tmp_path, KEY)
    store.add(["a"], torch.ones(1, 2))
    assert [path.suffix for path in store.folder.iterdir()] == [".safetensors"]


def add_some(folder, worker):
    store = FeatureStore(folder, KEY)
    for i in range(20):
        store.add([f"{worker}-{i}"], torch.full((1, 2), float(100 * worker + i)))


def test_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_some, args=(tmp_path, w)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = FeatureStore(tmp_path, KEY)
    names = [f"{w}-{i}" for w in range(3) for i in range(20)]
    assert store.missing(names) == []
    assert store.rows(names)[:, 0].tolist() == [100.0 * w + i for w in range(3) for i in range(20)]


def test_an_image_has_one_feature_whatever_its_neighbours():
    model = load_backbone("tiny/random")
    images = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    together = encode_fixed(model, images)
    for i in (0, 3, 6):
        assert torch.equal(encode_fixed(model, images[i : i + 1])[0], together[i])
    torch.testing.assert_close(together, model.encode_image(images), rtol=1e-4, atol=1e-5)
    assert ENCODE_BATCH >= 7


def test_key_names_all_that_a_feature_depends_on():
    key = feature_key(load_backbone("tiny/random"), "t", "torch.float32")
    assert set(key) >= {"weights", "output", "precision", "open_clip", "transform"}
