"""The store of features itself."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from clip import load_backbone
from clip.features import (
    ENCODE_BATCH,
    FeatureStore,
    encode_fixed,
    feature_key,
)

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
    assert "ignoring the unreadable feature file" in capsys.readouterr().out


def test_features_of_another_width_are_passed_over(tmp_path, capsys):
    store = FeatureStore(tmp_path, KEY)
    store.add(["a"], torch.ones(1, 2))
    other = FeatureStore(tmp_path / "other", KEY)
    other.add(["b"], torch.ones(1, 5))
    (path,) = other.folder.glob("*.safetensors")
    path.rename(store.folder / "zz.safetensors")
    found = FeatureStore(tmp_path, KEY)
    assert found.missing(["a", "b"]) == ["b"]
    assert "ignoring" in capsys.readouterr().out


def test_no_temporary_file_is_left(tmp_path):
    store = FeatureStore(tmp_path, KEY)
    store.add(["a"], torch.ones(1, 2))
    assert sorted(path.suffix or path.name for path in store.folder.iterdir()) == [
        ".safetensors",
        ".used",
    ]
    assert [path.name for path in store.folder.parent.glob("*.*")] == ["key.json"]


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
    together = encode_fixed(model, images)["global"]
    for i in (0, 3, 6):
        assert torch.equal(encode_fixed(model, images[i : i + 1])["global"][0], together[i])
    torch.testing.assert_close(together, model.encode_image(images), rtol=1e-4, atol=1e-5)
    assert ENCODE_BATCH >= 7


def test_key_names_all_that_a_feature_depends_on():
    key = feature_key(load_backbone("tiny/random"), "t", "torch.float32")
    assert set(key) >= {"weights", "output", "precision", "open_clip", "transform"}


# ---------------------------------------------------------------- files


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_files_are_mapped_and_not_read(tmp_path):
    names = [str(i) for i in range(64)]
    for start in range(0, 64, 16):
        some = torch.arange(start, start + 16).float()[:, None].expand(-1, 500_000)
        FeatureStore(tmp_path, KEY).add(names[start : start + 16], some)  # 32 MB in a file
    before = resident_bytes()
    store = FeatureStore(tmp_path, KEY)
    found = store.rows(["3", "60", "17"])
    assert found[:, 0].tolist() == [3, 60, 17]
    assert resident_bytes() - before < 40e6  # of 128 MB: the rows asked for, and their pages


def test_rows_of_several_files_and_dimensions(tmp_path):
    features = torch.randn(9, 4, 3, generator=torch.Generator().manual_seed(0))
    names = list("abcdefghi")
    for start, stop in ((0, 2), (2, 3), (3, 9)):
        FeatureStore(tmp_path, KEY).add(names[start:stop], features[start:stop])
    store = FeatureStore(tmp_path, KEY)
    order = [8, 0, 3, 2, 2, 7, 1]
    assert torch.equal(store.rows([names[i] for i in order]), features[order])
    assert len(store) == 9


def test_another_view_is_another_folder(tmp_path):
    FeatureStore(tmp_path, KEY, view="1-0").add(["a"], torch.ones(1, 2))
    assert FeatureStore(tmp_path, KEY, view="1-1").missing(["a"]) == ["a"]
    assert FeatureStore(tmp_path, KEY, view="1-0").missing(["a"]) == []


def test_what_others_add_is_found(tmp_path):
    store, other = FeatureStore(tmp_path, KEY), FeatureStore(tmp_path, KEY)
    other.add(["a"], torch.ones(1, 2))
    assert store.missing(["a"]) == ["a"]
    store.refresh()
    assert store.missing(["a"]) == []


def add_for_ever(folder):
    store = FeatureStore(folder, KEY)
    for i in range(10**9):
        store.add([str(i)], torch.full((1, 50_000), float(i)))


def test_a_killed_process_leaves_whole_features(tmp_path, capsys):
    worker = multiprocessing.get_context("fork").Process(target=add_for_ever, args=(tmp_path,))
    worker.start()
    while len(list(tmp_path.rglob("[!.]*.safetensors"))) < 5:
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    store = FeatureStore(tmp_path, KEY)
    names = [str(i) for i in range(len(store))]
    assert len(store) >= 5
    assert store.rows(names)[:, -1].tolist() == [float(i) for i in range(len(store))]
    assert "unreadable" not in capsys.readouterr().out


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 10**6))
def test_damaged_files_give_nothing_wrong(tmp_path_factory, noise, where):
    store = FeatureStore(tmp_path_factory.mktemp("noise"), KEY)
    features = torch.arange(12.0).view(3, 4)
    store.add(["a", "b", "c"], features)
    (path,) = store.folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    head = len(content) - features.numel() * 4  # in the payload only verify can tell
    at = where % head
    content[at : at + len(noise)] = noise[: head - at]
    path.write_bytes(bytes(content))
    found = FeatureStore(store.root, KEY)
    for name in set("abc") - set(found.missing(["a", "b", "c"])):
        assert torch.equal(found.rows([name])[0], features["abc".index(name)])
