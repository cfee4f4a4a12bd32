"""The store of features itself."""

import multiprocessing
import os
import signal
import sqlite3
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from clip import load_backbone
from clip.features import (
    ENCODE_BATCH,
    DigestCache,
    FeatureStore,
    clear,
    encode_fixed,
    feature_key,
    make_room,
    parts,
)
from clip.features.__main__ import main
from dassl.utils import UserError

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
    while len(list(tmp_path.rglob("*.safetensors"))) < 5:
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


# ---------------------------------------------------------------- digests


def settled(path, content):
    """Write a file, and make it look as if that was a minute ago; ctime stays."""
    path.write_bytes(content)
    old = time.time_ns() - 60 * 10**9
    os.utime(path, ns=(old, old))
    return str(path)


class Counting:
    """A reader that counts."""

    def __init__(self):
        self.paths = []

    def __call__(self, path):
        self.paths.append(path)
        with open(path, "rb") as file:
            return file.read().hex()


@pytest.fixture
def ctime_settles(monkeypatch):
    """Files need not lie for seconds before their digests are kept."""
    monkeypatch.setattr("clip.features._digests.SETTLED_NS", -(10**12))


def test_digests_are_kept_for_other_processes(tmp_path, ctime_settles):
    paths = [settled(tmp_path / f"{i}.png", b"%d" % i) for i in range(1200)]
    first, second = Counting(), Counting()
    expected = [(b"%d" % i).hex() for i in range(1200)]
    assert DigestCache(tmp_path / "f", first).of(paths) == expected
    assert first.paths == paths
    assert DigestCache(tmp_path / "f", second).of([*paths, paths[0]]) == [*expected, expected[0]]
    assert second.paths == []
    base = sqlite3.connect(tmp_path / "f" / "digests.sqlite")
    assert base.execute("SELECT count(*) FROM digests WHERE path LIKE '/%'").fetchone() == (0,)
    base.close()


def test_a_file_changed_just_now_is_read_every_time(tmp_path):
    path, reader = settled(tmp_path / "a.png", b"1"), Counting()
    cache = DigestCache(tmp_path / "f", reader)
    assert cache.of([path]) == cache.of([path]) == ["31"]
    assert reader.paths == [path, path]


def test_a_change_that_keeps_size_and_mtime_is_seen(tmp_path, ctime_settles):
    path = settled(tmp_path / "a.png", b"1")
    stat = os.stat(path)
    cache = DigestCache(tmp_path / "f", Counting())
    assert cache.of([path]) == ["31"]
    time.sleep(0.02)  # the resolution of ctime
    with open(path, "r+b") as file:
        file.write(b"2")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = os.stat(path)
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (1, stat.st_mtime_ns, stat.st_ino)
    assert cache.of([path]) == DigestCache(tmp_path / "f", Counting()).of([path]) == ["32"]


@pytest.mark.parametrize("content", [b"no database" * 100, b"", b"SQLite format 3\0" + b"x" * 500])
def test_a_broken_database_is_passed_over(tmp_path, ctime_settles, content):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "digests.sqlite").write_bytes(content)
    path = settled(tmp_path / "a.png", b"1")
    for _ in range(2):
        assert DigestCache(tmp_path / "f", Counting()).of([path]) == ["31"]
    reader = Counting()
    assert DigestCache(tmp_path / "f", reader).of([path]) == ["31"]
    assert reader.paths == []  # a new one has taken its place


# ---------------------------------------------------------------- what lies there


def filled(root, views):
    """A store of 10 features of 4 kB for each view, used in this order."""
    for i, view in enumerate(views):
        store = FeatureStore(root, KEY, view, label="toy")
        store.add([str(n) for n in range(10)], torch.randn(10, 1000))
        os.utime(store.folder / ".used", (1000 + i, 1000 + i))


def test_the_least_recently_used_goes_first(tmp_path):
    filled(tmp_path, "abcd")
    os.utime(FeatureStore(tmp_path, {}, "a").root / parts(tmp_path)[0].folder / ".used", None)
    size = parts(tmp_path)[0].size
    keep = [part.folder for part in parts(tmp_path) if part.folder.name == "b"]
    assert make_room(tmp_path, 0, 4 * size) == []
    removed = make_room(tmp_path, size, 3 * size, keep)
    assert [part.folder.name for part in removed] == ["c", "d"]
    assert sorted(part.folder.name for part in parts(tmp_path)) == ["a", "b"]


def test_a_mapped_part_may_be_removed(tmp_path):
    filled(tmp_path, "a")
    store = FeatureStore(tmp_path, KEY, "a")
    expected = store.rows(["3"]).clone()
    assert len(clear(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(store.rows(["3"]), expected)
    store.refresh()
    store.add(["x"], torch.zeros(1, 1000))
    assert FeatureStore(tmp_path, KEY, "a").missing(["3", "x"]) == ["3"]


def test_info(tmp_path, capsys):
    assert main(["info", "--dir", str(tmp_path / "none")]) == 0
    assert "nothing is stored" in capsys.readouterr().out
    filled(tmp_path, "ab")
    assert main(["info", "--dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "/a: 10 ? of toy" in lines[0]
    assert lines[2].startswith("2 parts, 0.1 MiB")


def test_verify(tmp_path, capsys, ctime_settles):
    filled(tmp_path, "ab")
    images = [settled(tmp_path / f"{i}.png", b"image") for i in range(3)]
    DigestCache(tmp_path).of(images)
    assert main(["verify", "--dir", str(tmp_path)]) == 0
    assert "2 files read, 0 bad; 3 images read, 0 changed" in capsys.readouterr().out
    (shard,) = parts(tmp_path)[0].shards
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # which no reader notices
    shard.write_bytes(bytes(content))
    base = sqlite3.connect(tmp_path / "digests.sqlite")
    base.execute("UPDATE digests SET digest = '0' WHERE path = '1.png'")
    base.commit()
    base.close()
    os.remove(images[2])
    assert main(["verify", "--dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"{shard}: damaged; deleted" in out
    assert f"{images[1]}: its digest was wrong" in out
    assert "2 files read, 1 bad; 2 images read, 1 changed" in out
    assert main(["verify", "--dir", str(tmp_path)]) == 0
    assert "1 files read, 0 bad; 1 images read, 0 changed" in capsys.readouterr().out


def test_clear(tmp_path, capsys):
    filled(tmp_path, "ab")
    (tmp_path / "mine.txt").write_text("not a store")
    (used,) = [p for p in tmp_path.rglob(".used") if p.parent.name == "b"]
    os.utime(used)
    assert main(["clear", "--days", "1", "--dir", str(tmp_path)]) == 0
    assert [part.folder.name for part in parts(tmp_path)] == ["b"]
    assert main(["clear", "--dir", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert "1 parts, 0.0 MiB, deleted" in capsys.readouterr().out
    with pytest.raises(UserError):
        main(["info", "--days", "1"])
