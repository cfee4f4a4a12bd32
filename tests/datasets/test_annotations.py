"""Annotation files that datasets come with: bad lines, damaged files, missing names."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.data import DATASET_REGISTRY
from dassl.utils import UserError
from datasets import stanford_cars
from datasets._core.annotations import class_index, read_rows
from datasets._core.mini import draw, make_mini
from tests.datasets.folders import load


@pytest.mark.parametrize(
    ("name", "file", "line", "message"),
    [
        ("OxfordPets", "annotations/test.txt", "Abyssinian_9 1 1", r"test.txt:38: expected 'image"),
        ("OxfordPets", "annotations/test.txt", "Abyssinian_9 99 1 1", "number from 1 to 37"),
        ("OxfordPets", "annotations/test.txt", "../../x_1 1 1 1", "stay inside"),
        ("OxfordPets", "annotations/trainval.txt", "Abyssinian_77 1 1 1", "names images that"),
        ("FGVCAircraft", "images_variant_val.txt", "1 Zeppelin", "no variant 'Zeppelin'"),
        ("SUN397", "Testing_01.txt", "/z/zoo/1.jpg", "no class 'z/zoo'"),
        ("UCF101", "ucfTrainTestlist/testlist01.txt", "Flying/v.avi", "no action 'Flying'"),
        ("OxfordFlowers", "cat_to_name.json", "{", "is not valid JSON"),
        ("OxfordFlowers", "imagelabels.mat", None, "cannot read .*imagelabels.mat"),
        ("StanfordCars", "devkit/cars_meta.mat", "", "there is no file .*cars_meta.mat"),
        ("Fashion20", "task_info.csv", "20\tx\ty\ta,b", "has 21 tasks"),
    ],
)
def test_bad_annotations_are_named(tmp_path, name, file, line, message):
    make_mini(name, tmp_path, per_class=4)
    path = tmp_path / DATASET_REGISTRY.get(name).dataset_dir / file
    if line is None:
        path.write_bytes(path.read_bytes()[:100])
    elif line:
        path.write_text(f"{path.read_text()}{line}\n")
    else:
        path.unlink()
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message):
        load(name, tmp_path)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before  # no split is left behind


def test_cut_matlab_file_is_named(tmp_path):
    rows = [(1, "00001.jpg"), (2, "00002.jpg")] * 3
    path = tmp_path / "a.mat"
    draw.write_mat(path, {"annotations": rows}, ("class", "fname"))
    content = path.read_bytes()
    assert [d.label for d in stanford_cars._images(path, "cars_train", 2)] == [0, 1] * 3
    with pytest.raises(UserError, match=r"a\.mat, 00002\.jpg: '2' is not a class number"):
        stanford_cars._images(path, "cars_train", 1)
    for length in range(0, len(content) - 8, 37):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"a\.mat"):
            stanford_cars._images(path, "cars_train", 2)
    draw.write_mat(path, {"annotations": [[1, 2]]})
    with pytest.raises(UserError, match="must have the fields 'fname' and 'class'"):
        stanford_cars._images(path, "cars_train", 2)


shaped = st.lists(st.sampled_from(["Abyssinian_1", "../x_1", "1", "37", "99", "-1", "x"]))
junk = st.lists(shaped.map(" ".join) | st.text(max_size=12), max_size=6).map("\n".join)


@settings(max_examples=80, deadline=None)
@given(content=st.one_of(junk.map(str.encode), st.binary(max_size=40)))
def test_any_list_gives_rows_or_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("rows") / "list.txt"
    path.write_bytes(content)
    try:
        for where, (image, number, _, _) in read_rows(path, "image class species breed"):
            assert image and where.startswith(f"{path}:")
            assert 0 <= class_index(number, 37, where) < 37
    except UserError as error:
        assert str(path) in str(error)


def test_flowers_and_imagenet_have_their_names_without_a_file(tmp_path):
    for name, file in (("OxfordFlowers", "cat_to_name.json"), ("ImageNetA", "classnames.txt")):
        (folder,) = make_mini(name, tmp_path, per_class=4)
        names = load(name, tmp_path).classnames
        (folder / file).unlink()
        (folder / f"split_own_{name}.json").unlink(missing_ok=True)
        assert load(name, tmp_path).classnames == names


def test_folder_that_does_not_belong_is_named(tmp_path):
    for name, extra in (("ImageNetA", "imagenet-a/n99999999"), ("ImageNet", "images/val/n1")):
        folder = tmp_path / DATASET_REGISTRY.get(name).dataset_dir
        make_mini(name, tmp_path, per_class=4)
        (folder / extra).mkdir()
        (folder / extra / "1.jpg").write_bytes(b"x")
        with pytest.raises(UserError, match=Path(extra).name):
            load(name, tmp_path)


def test_parts_of_one_dataset_need_the_same_folders(tmp_path):
    make_mini("FruitVegetable", tmp_path, per_class=4)
    images = tmp_path / "fruit_vegetable" / "images"
    (images / "test" / "apple").rename(images / "test" / "apples")
    with pytest.raises(UserError, match="do not have the same class folders: apple, apples"):
        load("FruitVegetable", tmp_path)
