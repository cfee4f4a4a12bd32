"""How a dataset in a folder is found, split and cut to few shots."""

import json
import random
import threading
from pathlib import Path

import pytest

from dassl.data import Datum
from dassl.utils import UserError
from datasets._core import stored_files
from datasets._core.splits import Split
from tests.datasets.folders import Pets, fill, in_part, paths


def test_folders_are_divided_50_20_30_class_by_class(cfg, root):
    pets = Pets(cfg)
    assert pets.classnames == ["cat", "dog", "owl"]  # folders sorted, then renamed
    for label, name, total in [(0, "Kitty", 20), (1, "dog", 10), (2, "owl", 13)]:
        parts = [in_part(part, label) for part in (pets.train_x, pets.val, pets.test)]
        assert parts[:2] == [round(0.5 * total), round(0.2 * total)] and sum(parts) == total
        assert all(f"/{name}/" in p.impath for p in pets.test if p.label == label)
    everything = paths([*pets.train_x, *pets.val, *pets.test])
    assert len(set(everything)) == len(everything) == 43
    assert all(Path(path).is_file() for path in everything)
    assert {item.classname for item in pets.train_x if item.label == 0} == {"cat"}
    task = pets.space.tasks[0]
    assert (task.name, task.templates) == ("kind of pet", Pets.templates)
    assert (pets.split, len(pets.identity.draw)) == ("own", 64)


def test_own_split_is_stored_and_is_the_same_for_every_seed_and_place(cfg, root, tmp_path):
    first = Pets(cfg)
    text = (root / "pets" / "split_own_Pets.json").read_text()
    assert str(root) not in text
    # noted down once, so that neither this code nor Python may change it unnoticed
    assert [Path(d.impath).stem for d in first.val if d.label == 1] == ["05", "06"]
    cfg.SEED = 2
    assert Pets(cfg).identity.draw == first.identity.draw
    assert [*root.glob("pets/split_own*")] == [root / "pets" / "split_own_Pets.json"]

    fill(tmp_path / "b" / "pets" / "images", {"dog": 10, "Kitty": 20, "owl": 13})
    cfg.DATASET.ROOT = str(tmp_path / "b")
    assert Pets(cfg).identity.draw == first.identity.draw
    assert (tmp_path / "b" / "pets" / "split_own_Pets.json").read_text() == text


def test_stored_split_is_used_rather_than_the_folder(cfg, root):
    before = Pets(cfg)
    (root / "pets" / "images" / "dog" / "99.jpg").touch()
    assert paths(Pets(cfg).test) == paths(before.test)


def test_edited_own_split_is_refused(cfg, root):
    Pets(cfg)
    path = root / "pets" / "split_own_Pets.json"
    content = json.loads(path.read_text())
    content["test"].append(content["train"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="its hash is not"):
        Pets(cfg)


def test_read_only_data_folder_uses_the_cache(cfg, root, cache, monkeypatch):
    def refuse(content, path):
        if Path(path).is_relative_to(root):
            raise PermissionError(13, "Permission denied")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    monkeypatch.setattr(stored_files, "write_json", refuse)
    cfg.DATASET.NUM_SHOTS = 2
    first = Pets(cfg)
    assert [*root.glob("pets/split*.json")] == []
    assert len([*cache.glob("splits/pets-*/split_own_Pets.json")]) == 1
    assert len([*cache.glob("splits/pets-*/split_fewshot/Pets-own-shot_2-seed_1.json")]) == 1
    assert Pets(cfg).identity.draw == first.identity.draw

    def fail(content, path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(stored_files, "write_json", fail)
    cfg.SEED = 9
    with pytest.raises(UserError, match=r"can write neither .*Read-only.* nor .*XDG_CACHE_HOME"):
        Pets(cfg)


def test_many_may_begin_at_once(cfg, root):
    cfg.DATASET.NUM_SHOTS = 2
    hashes = []
    threads = [
        threading.Thread(target=lambda: hashes.append(Pets(cfg).identity.draw)) for _ in "1234"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hashes) == 4 and len(set(hashes)) == 1
    assert {p.name for p in (root / "pets").iterdir()} == {
        "images", "split_own_Pets.json", "split_fewshot",
    }  # fmt: skip


def naive_shots(items, shots, rng):
    """CoOp's draw: classes by first appearance."""
    drawn = []
    for label in dict.fromkeys(item.label for item in items):
        group = [item for item in items if item.label == label]
        drawn += group if len(group) < shots else rng.sample(group, shots)
    return drawn


@pytest.mark.parametrize("shots", [1, 2, 6])
def test_few_shots_are_the_draw_of_one_generator(cfg, root, shots):
    whole = Pets(cfg)
    cfg.DATASET.NUM_SHOTS, cfg.SEED = shots, 7
    few = Pets(cfg)
    rng = random.Random(7)
    assert paths(few.train_x) == paths(naive_shots(whole.train_x, shots, rng))
    assert paths(few.val) == paths(naive_shots(whole.val, min(shots, 4), rng))
    assert paths(few.test) == paths(whole.test)
    assert few.identity.draw != whole.identity.draw
    record = json.loads(
        (root / f"pets/split_fewshot/Pets-own-shot_{shots}-seed_7.json").read_text()
    )
    assert [f"{root}/pets/images/{p}" for p in record["train"]] == paths(few.train_x)
    assert len(record["hash"]) == 64 and str(root) not in json.dumps(record)
    assert paths(Pets(cfg).train_x) == paths(few.train_x)
    cfg.SEED = 8
    assert paths(Pets(cfg).train_x) != paths(few.train_x)


def test_a_class_with_fewer_images_gives_all(cfg):
    cfg.DATASET.NUM_SHOTS = 8
    pets = Pets(cfg)
    assert [in_part(pets.train_x, label) for label in range(3)] == [8, 5, 6]
    assert [in_part(pets.val, label) for label in range(3)] == [4, 2, 3]


def test_draw_of_another_split_is_noticed(cfg, root):
    cfg.DATASET.NUM_SHOTS = 2
    Pets(cfg)
    (root / "pets" / "split_own_Pets.json").unlink()
    (root / "pets" / "images" / "dog" / "99.jpg").write_text("x")
    with pytest.raises(UserError, match=r"Pets-own-shot_2-seed_1.json holds another few-shot draw"):
        Pets(cfg)


def test_task_name_file_wins(cfg, root):
    (root / "pets" / "task_name.txt").write_text("  household animals \nsecond line\n")
    assert Pets(cfg).space.tasks[0].name == "household animals"
    (root / "pets" / "task_name.txt").write_text("\n")
    assert Pets(cfg).space.tasks[0].name == "kind of pet"
    (root / "pets" / "task_name.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read .*task_name.txt"):
        Pets(cfg)


def test_own_reader_with_several_tasks(cfg, root):
    class Parts(Pets):
        def read(self, rng):
            split = Split([("a", "b"), ("c",)], tasknames=("ears", "tail"))
            for task, label, folder in [(0, 0, "Kitty"), (0, 1, "owl"), (1, 0, "Kitty")]:
                images = self.image_root / folder
                names = sorted(path.name for path in images.iterdir())
                found = [Datum(f"{folder}/{name}", label, task=task) for name in names]
                split.divide_class(found, rng, images)
            return split

    parts = Parts(cfg)
    assert [task.name for task in parts.space.tasks] == ["ears", "tail"]
    assert [len(part) for part in (parts.train_x, parts.val, parts.test)] == [26, 11, 16]
    assert Parts(cfg).identity.draw == parts.identity.draw


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ROOT", "", "Pets needs a data folder: .* holds pets/ with --root"),
        ("ROOT", "/nowhere", r"no folder /nowhere/pets/images; give the folder .*--root"),
        ("SPLIT", "coop", "no DATASET.SPLIT named 'coop'; known: auto, zhou, dk, own"),
        ("SPLIT", "zhou", "no file .*split_zhou_Pets.json; .* auto or own"),
        ("SPLIT", "dk", "no file .*split_dk_Pets.json"),
        ("SUBSAMPLE_CLASSES", "old", "no DATASET.SUBSAMPLE_CLASSES named .*: all, base, new"),
        ("SUBSAMPLE_TASKS", "task2", r"named 'task2'; .*known: all, base, new, task0"),
        ("SUBSAMPLE_TASKS", "task", "no DATASET.SUBSAMPLE_TASKS named 'task'"),
        ("SUBSAMPLE_TASKS", "new", "is new, which leaves no task of 1"),
    ],
)
def test_refuses_what_cannot_be_used(cfg, key, value, message):
    cfg.DATASET[key] = value
    with pytest.raises(UserError, match=message):
        Pets(cfg)


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "class folder .*/wolf has no images"), (3, "wolf has 3 images, too few")],
)
def test_small_class_folder_is_named(cfg, root, count, message):
    fill(root / "pets" / "images", {"wolf": count})
    with pytest.raises(UserError, match=message):
        Pets(cfg)


def test_four_images_can_be_divided(cfg, root):
    fill(root / "pets" / "images", {"wolf": 4})
    pets = Pets(cfg)
    assert [in_part(part, 3) for part in (pets.train_x, pets.val, pets.test)] == [2, 1, 1]


def test_folder_without_classes_is_named(cfg, root, tmp_path):
    (tmp_path / "c" / "pets" / "images").mkdir(parents=True)
    cfg.DATASET.ROOT = str(tmp_path / "c")
    with pytest.raises(UserError, match="images has no folder in it"):
        Pets(cfg)


def test_file_name_that_json_cannot_hold_is_named(cfg, root):
    (root / "pets" / "images" / "dog" / "\udcff.jpg").touch()
    with pytest.raises(UserError, match="is not valid UTF-8; rename"):
        Pets(cfg)
