"""Few-shot draws: CoOp's, kept, noticed when the images change, exported and imported."""

import json
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from dassl.utils import UserError
from datasets.__main__ import parse_args
from datasets._core.commands import COMMANDS
from datasets._core.mini import make_mini
from tests.datasets.folders import Pets, fill, load
from tests.reference.shots import coop_draw


def run(*argv):
    args = parse_args([str(arg) for arg in argv])
    return COMMANDS[args.command](args)


def relative(items):
    return [(item.impath.rpartition("images/")[2], item.label) for item in items]


@pytest.fixture
def zhou(root):
    """A split as CoOp ships them: classes come in no order, labels are not sorted."""
    rng, entries = random.Random(5), []
    names = {"dog": 10, "Kitty": 20, "owl": 13}
    for label, (name, count) in enumerate(names.items()):
        entries += [[f"{name}/{i:02d}.jpg", label, name] for i in range(count)]
    rng.shuffle(entries)
    content = {"train": entries[:25], "val": entries[25:33], "test": entries[33:]}
    (root / "pets" / "split_zhou_Pets.json").write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_draw_is_coops(cfg, zhou, capsys, shots, seed):
    cfg.DATASET.NUM_SHOTS, cfg.SEED = shots, seed
    pets = Pets(cfg)
    counts = Counter(label for _, label, _ in zhou["train"]).values()
    small = [count for count in counts if count < shots]
    printed = capsys.readouterr().out
    assert ("have fewer than" in printed) is bool(small)
    if small:
        assert f": {len(small)} of 3 classes have fewer than {shots} training" in printed
        assert f"(the smallest has {min(small)})" in printed
    train, val = coop_draw(zhou["train"], zhou["val"], shots, seed)
    assert relative(pets.train_x) == [(path, label) for path, label, _ in train]
    assert relative(pets.val) == [(path, label) for path, label, _ in val]
    assert relative(pets.test) == [(path, label) for path, label, _ in zhou["test"]]


def test_draw_of_fixed_lists(cfg, root):
    """Noted down once, so that neither this code nor Python may change it unnoticed."""
    train = [[f"Kitty/{i:02d}.jpg", 0, "cat"] for i in range(6)]
    train += [[f"dog/{i:02d}.jpg", 1, "dog"] for i in range(5)]
    val = [[f"dog/{i:02d}.jpg", 1, "dog"] for i in (5, 6, 7)]
    content = {"train": train[::-1], "val": val, "test": [["Kitty/09.jpg", 0, "cat"]]}
    (root / "pets" / "split_zhou_Pets.json").write_text(json.dumps(content))
    drawn = {}
    for seed in (1, 2):
        cfg.DATASET.NUM_SHOTS, cfg.SEED = 2, seed
        pets = Pets(cfg)
        drawn[seed] = [p for part in (pets.train_x, pets.val) for p, _ in relative(part)]
    expected = {
        1: ["dog/03", "dog/04", "Kitty/03", "Kitty/05", "dog/06", "dog/07"],
        2: ["dog/04", "dog/00", "Kitty/05", "Kitty/03", "dog/05", "dog/06"],
    }
    assert drawn == {seed: [f"{n}.jpg" for n in names] for seed, names in expected.items()}


def test_record_is_json_with_relative_paths_and_sizes(cfg, root):
    cfg.DATASET.NUM_SHOTS = 2
    pets = Pets(cfg)
    (path,) = root.glob("pets/split_fewshot/*.json")
    record = json.loads(path.read_text())
    assert set(record) == {"hash", "train", "val", "bytes"}
    assert record["train"] == [p for p, _ in relative(pets.train_x)]
    assert set(record["bytes"].values()) == {len(b"not looked at")}
    assert str(root) not in path.read_text()
    path.write_text(json.dumps({**record, "bytes": None}))
    with pytest.raises(UserError, match="images have changed"):
        Pets(cfg)


def test_changed_image_is_noticed(cfg, root):
    cfg.DATASET.NUM_SHOTS = 2
    drawn = Path(Pets(cfg).train_x[0].impath)
    drawn.write_bytes(b"another picture")
    with pytest.raises(UserError, match=rf"images have changed .*{drawn.name}; put the old"):
        Pets(cfg)
    next(root.glob("pets/split_fewshot/*.json")).unlink()
    assert Path(Pets(cfg).train_x[0].impath) == drawn


def test_moved_image_is_noticed_whether_drawn_or_not(cfg, root):
    cfg.DATASET.NUM_SHOTS = 1
    pets = Pets(cfg)
    drawn = {d.impath for part in (pets.train_x, pets.val, pets.test) for d in part}
    everything = sorted((root / "pets" / "images" / "Kitty").iterdir())
    spare = next(path for path in everything if str(path) not in drawn)
    spare.rename(root / "elsewhere.jpg")
    with pytest.raises(UserError, match=f"split_own_Pets.json names images .*Kitty/{spare.name}"):
        Pets(cfg)


def test_added_images_are_named(cfg, root, capsys):
    Pets(cfg)
    assert capsys.readouterr().out == ""
    (root / "pets" / "images" / "dog" / "new.jpg").write_bytes(b"x")
    assert Pets(cfg).num_classes == 3
    printed = capsys.readouterr().out
    assert (
        "left out, since not in " in printed
        and ": 1 image, " in printed
        and "dog/new.jpg" in printed
    )
    assert "delete that file" in printed
    fill(root / "pets" / "images", {"wolf": 4})
    with pytest.raises(UserError, match=r"lacks 1 classes .*: wolf; delete that file"):
        Pets(cfg)


def test_empty_image_is_noticed(cfg, root):
    last = Pets(cfg).test[-1]
    Path(last.impath).write_bytes(b"")
    with pytest.raises(UserError, match=rf"the image {last.impath} is empty \(0 bytes\)"):
        Pets(cfg)


def test_export_and_import(tmp_path, capsys):
    root, other, file = tmp_path / "a", tmp_path / "b", tmp_path / "shots.json"
    for folder in (root, other):
        make_mini("KaggleFlower", folder, per_class=10)
    options = ("DATASET.NUM_SHOTS", 2, "SEED", 1)
    assert run("shots", "KaggleFlower", "--root", root, "--export", file, *options) == 0
    assert "20 images" in capsys.readouterr().out
    content = json.loads(file.read_text())
    theirs = load("KaggleFlower", root, NUM_SHOTS=2)
    assert content[0]["train"] == [d.impath.split("flowers/")[1] for d in theirs.train_x]
    assert str(tmp_path) not in file.read_text()

    content[0]["train"] = sorted(content[0]["train"], reverse=True)[:7]
    file.write_text(json.dumps(content))
    assert run("shots", "KaggleFlower", "--root", other, "--import", file, *options) == 0
    ours = load("KaggleFlower", other, NUM_SHOTS=2)
    assert [d.impath.split("flowers/")[1] for d in ours.train_x] == content[0]["train"]
    assert ours.test == load("KaggleFlower", other).test
    one = load("KaggleFlower", other, NUM_SHOTS=2)
    assert one.identity.draw == ours.identity.draw != theirs.identity.draw
    Path(ours.train_x[3].impath).write_bytes(b"changed")
    with pytest.raises(UserError, match="images have changed"):
        load("KaggleFlower", other, NUM_SHOTS=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[0].update(dataset="OxfordPets"), r"draws of \['OxfordPets'\]"),
        (lambda c: c[0].update(train=["../../x.jpg"]), "train images that are not in train"),
        (lambda c: c[0].update(train=c[0]["val"]), "images that are not in train"),
        (lambda c: c[0].update(train=5), "'train' must be a list of paths"),
        (lambda c: c[0].update(train=[]), "it has no train images"),
        (lambda c: c.clear(), r"draws of \[\]"),
    ],
)
def test_unusable_import_is_refused(tmp_path, change, message):
    root, file = tmp_path / "a", tmp_path / "shots.json"
    make_mini("KaggleFlower", root)
    options = ("DATASET.NUM_SHOTS", 2, "SEED", 1)
    run("shots", "KaggleFlower", "--root", root, "--export", file, *options)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    before = [p.read_text() for p in root.glob("*/split_fewshot/*")]
    with pytest.raises(UserError, match=message):
        run("shots", "KaggleFlower", "--root", root, "--import", file, *options)
    assert [p.read_text() for p in root.glob("*/split_fewshot/*")] == before


def _load(root):
    return load("UCMerced", root, NUM_SHOTS=2).identity.draw


def test_processes_may_make_the_same_split_at_once(tmp_path):
    make_mini("UCMerced", tmp_path)
    with ProcessPoolExecutor(2) as pool:
        hashes = set(pool.map(_load, [tmp_path] * 4))
    assert hashes == {_load(tmp_path)}
    folder = tmp_path / "UCMerced_LandUse"
    names = {path.name for path in folder.iterdir()}
    assert names == {"Images", "miniature.txt", "split_own_UCMerced.json", "split_fewshot"}
    assert len([*folder.glob("split_fewshot/*")]) == 1


def test_read_only_data_folder_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_mini("RSSCN7", tmp_path / "data")
    before = sorted((tmp_path / "data").rglob("*"))
    from datasets._core import stored_files

    def refuse(content, path):
        if Path(path).is_relative_to(tmp_path / "data"):
            raise OSError(30, "Read-only file system")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(content))

    monkeypatch.setattr(stored_files, "write_json", refuse)
    first = load("RSSCN7", tmp_path / "data", NUM_SHOTS=1)
    assert sorted((tmp_path / "data").rglob("*")) == before
    assert load("RSSCN7", tmp_path / "data", NUM_SHOTS=1).identity.draw == first.identity.draw
