"""Data that changed after their split was stored: used as they are now, or refused by name.

Each case: a first run stores the split, then the data change, then ``python -m datasets check``.
"""

import json
import shutil
from pathlib import Path

import pytest

from dassl.data import DATASET_REGISTRY
from datasets._core.mini import draw, make_mini
from datasets._core.mini.layouts import write_lines
from tests.datasets.folders import load

pytestmark = pytest.mark.usefixtures("user_cache")


def table(folder, classes, tasks=None, name="manifest.csv"):
    """A manifest over twelve images."""
    tasks = tasks or ["kind"] * 12
    lines = ["path,class,task"]
    for i in range(12):
        path = folder / "images" / f"{i:02d}.png"
        if not path.is_file():
            draw.save(path, f"{i}", i)
        lines.append(f"images/{i:02d}.png,{classes[i]},{tasks[i]}")
    write_lines(folder / name, lines)


OLD = ["cat"] * 6 + ["dog"] * 6


def relabel(root):
    table(root, ["dog", *OLD[1:]])


def exchange(root):
    table(root, OLD[::-1])


def rename(root):
    table(root, ["kitten" if c == "cat" else c for c in OLD])


def rename_task(root):
    table(root, OLD, ["animal"] * 12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (relabel, ["1 of 12 images", "images/00.png", "'cat' there", "'dog' now"]),
        (exchange, ["12 of 12 images", "'cat' there", "'dog' now"]),
        (rename, ["6 of 12 images", "'cat' there", "'kitten' now"]),
        (rename_task, ["has the tasks kind", "now have animal"]),
    ],
)
def test_changed_manifest_is_refused(tmp_path, check, change, words):
    table(tmp_path, OLD)
    before = load("Manifest", tmp_path).identity
    change(tmp_path)
    code, out = check("Manifest", tmp_path)
    split = tmp_path / "split_own_Manifest.json"
    assert code == 1 and str(split) in out and "delete that file" in out
    assert all(word in out for word in words), out
    split.unlink()
    assert check("Manifest", tmp_path)[0] == 0
    assert load("Manifest", tmp_path).identity.shared != before.shared


def test_unchanged_manifest_keeps_its_split(tmp_path):
    table(tmp_path, OLD)
    before = load("Manifest", tmp_path).identity
    lines = (tmp_path / "manifest.csv").read_text().splitlines()
    write_lines(tmp_path / "manifest.csv", [lines[0], *lines[:0:-1]])  # in another order
    assert load("Manifest", tmp_path).identity == before


def test_another_table_has_a_split_and_shots_of_its_own(tmp_path):
    table(tmp_path, OLD)
    table(tmp_path, ["red"] * 6 + ["green"] * 6, name="by colour.csv")
    first = load("Manifest", tmp_path, NUM_SHOTS=1)
    other = load("Manifest", tmp_path, NUM_SHOTS=1, MANIFEST="by colour.csv")
    assert first.classnames == ["cat", "dog"] and other.classnames == ["green", "red"]
    assert {p.name for p in tmp_path.glob("split_own*")} == {
        "split_own_Manifest.json",
        "split_own_Manifest-by-colour.json",
    }
    assert len([*tmp_path.glob("split_fewshot/*")]) == 2


def swap_lines(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def flower_names(folder):
    swap_lines(folder / "cat_to_name.json", '"pink primrose"', '"rose primrose"')


def flower_labels(folder):
    from scipy.io import loadmat

    labels = loadmat(folder / "imagelabels.mat")["labels"].ravel().tolist()
    labels[0], labels[1] = labels[1], labels[0]
    draw.write_mat(folder / "imagelabels.mat", {"labels": [labels]})


def car_names(folder):
    from scipy.io import loadmat

    names = [str(n[0]) for n in loadmat(folder / "devkit/cars_meta.mat")["class_names"][0]]
    names[0] = "Ford Model T 1908"
    draw.write_mat(folder / "devkit/cars_meta.mat", {"class_names": [names]})


def actions(folder):
    for name in ("classInd", "trainlist01", "testlist01"):
        path = folder / "ucfTrainTestlist" / f"{name}.txt"
        path.write_text(path.read_text().replace("ApplyLipstick", "UseLipstick"))
    frames = folder / "UCF-101-midframes"
    (frames / "Apply_Lipstick").rename(frames / "Use_Lipstick")
    for path in (frames / "Use_Lipstick").iterdir():
        path.rename(path.with_name(path.name.replace("ApplyLipstick", "UseLipstick")))


def scenes(folder):
    path = folder / "Training_01.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")


def breeds(folder):
    swap_lines(folder / "annotations/test.txt", "Abyssinian_6 1", "Abyssinian_6 2")


def fashion_names(folder):
    swap_lines(folder / "task_info.csv", "invented pants type 1", "jeans")


def fashion_tasks(folder):
    swap_lines(folder / "task_info.csv", "pants type\t", "sort of pants\t")


def moved_images(folder):
    images = folder / "flowers"
    (images / "daisy" / "0001.jpg").rename(images / "rose" / "9.jpg")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("OxfordFlowers", flower_names, ["'pink primrose' there", "'rose primrose' now"]),
        ("OxfordFlowers", flower_labels, ["2 of", "image_0000"]),
        ("StanfordCars", car_names, ["there", "'1908 Ford Model T' now"]),
        ("UCF101", actions, ["not in", "Apply_Lipstick"]),
        ("SUN397", scenes, ["1 images that are no longer listed"]),
        ("OxfordPets", breeds, ["Abyssinian_6", "'abyssinian' there"]),
        ("Fashion20", fashion_names, ["'invented pants type 1' there", "'jeans' now"]),
        ("Fashion20", fashion_tasks, ["has the tasks pants type", "sort of pants"]),
        ("KaggleFlower", moved_images, ["daisy/0001.jpg"]),
    ],
)
def test_changed_annotations_are_refused(tmp_path, check, name, change, words):
    (folder,) = make_mini(name, tmp_path)
    load(name, tmp_path)
    assert check(name, tmp_path)[0] == 0
    change(folder)
    code, out = check(name, tmp_path)
    assert code == 1 and f"split_own_{name}.json" in out and "delete" in out
    assert all(word in out for word in words), out
    (folder / f"split_own_{name}.json").unlink()
    assert check(name, tmp_path)[0] == 0


def test_a_stored_split_does_without_its_annotation_files(tmp_path, check):
    (folder,) = make_mini("OxfordPets", tmp_path, per_class=4)
    before = load("OxfordPets", tmp_path).identity
    shutil.rmtree(folder / "annotations")
    assert load("OxfordPets", tmp_path).identity == before


def test_names_beside_a_folder_are_read_anew(tmp_path):
    for name in ("a", "b"):
        for i in range(6):
            draw.save(tmp_path / name / f"{i}.png", name, i)
    (tmp_path / "classnames.txt").write_text("apple\nbear\n")
    assert load("ImageFolder", tmp_path).classnames == ["apple", "bear"]
    (tmp_path / "classnames.txt").write_text("bear\napple\n")
    data = load("ImageFolder", tmp_path)
    assert {d.classname for d in data.test if "/a/" in d.impath} == {"bear"}


def test_split_of_another_project_is_taken_as_it_is(tmp_path):
    (folder,) = make_mini("KaggleFlower", tmp_path)
    entries = [[f"{c}/0001.jpg", i, c] for i, c in enumerate(["rose", "daisy"])]
    split = {"train": entries, "val": [], "test": [["rose/0002.jpg", 0, "rose"]]}
    (folder / "split_zhou_KaggleFlower.json").write_text(json.dumps(split))
    assert load("KaggleFlower", tmp_path).classnames == ["rose", "daisy"]
    assert Path(DATASET_REGISTRY.get("KaggleFlower").dataset_dir).name == folder.name
