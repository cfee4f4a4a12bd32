"""Digests of images, and the administration of the feature store."""

import os
import shutil
import sqlite3
import time
import types
from pathlib import Path

import pytest
import torch

from clip.features import DigestCache, FeatureStore, clear, make_room, parts, verify_shards
from clip.features.__main__ import main
from clip.features._admin import remove
from dassl.utils import UserError
from dassl.utils.hashes import hash_file

KEY = {"weights": "w", "transform": "t"}


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


def test_a_database_with_damaged_pages_is_replaced(tmp_path, ctime_settles):
    root = tmp_path / "f"
    paths = [settled(tmp_path / f"{i}.png", b"%d" % i) for i in range(300)]
    DigestCache(root, Counting()).of(paths)
    content = (root / "digests.sqlite").read_bytes()
    (root / "digests.sqlite").write_bytes(content[:4096] + b"x" * (len(content) - 4096))
    assert DigestCache(root, Counting()).verify() == (0, [])
    for expected in (paths, []):
        reader = Counting()
        DigestCache(root, reader).of(paths)
        assert reader.paths == expected


def test_large_numbers_and_names_that_are_no_text(tmp_path, ctime_settles, monkeypatch):
    """Some file systems number files with 64 bits; some folders have names that are no UTF-8."""
    stat = types.SimpleNamespace(st_size=1, st_mtime_ns=1, st_ctime_ns=1, st_ino=2**64 - 1)
    path = settled(tmp_path / "a.png", b"1")
    with monkeypatch.context() as patch:
        real = os.stat
        patch.setattr("os.stat", lambda name, **how: stat if name == path else real(name, **how))
        assert [DigestCache(tmp_path / "f").of([path]) for _ in range(2)] == [[hash_file(path)]] * 2
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    shutil.copy(path, strange)
    assert DigestCache(tmp_path / "f").of([strange]) == [hash_file(path)]


def test_what_another_process_deletes_is_passed_over(tmp_path, monkeypatch):
    """A temporary file that its writer renames, and a part that is cleared, while all are read."""
    filled(tmp_path, "ab")
    part = parts(tmp_path)[0]
    (part.folder / ".tmp-1.safetensors").touch()
    listed = Path.glob

    def vanishing(folder, pattern):
        found = list(listed(folder, pattern))
        if pattern == ".*.*" or folder == part.folder:
            shutil.rmtree(part.folder, ignore_errors=True)
        return iter(found)

    monkeypatch.setattr(Path, "glob", vanishing)
    assert verify_shards(tmp_path) == (1, [])
    shutil.rmtree(part.folder.parent)
    assert remove(part) is None


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
    assert lines[2].startswith("2 parts, 80.4 kB")


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
    assert "1 part, 40.2 kB, deleted" in capsys.readouterr().out
    with pytest.raises(UserError):
        main(["info", "--days", "1"])
    with pytest.raises(UserError, match=r"--days.*-1"):
        main(["clear", "--days", "-1", "--dir", str(tmp_path)])
