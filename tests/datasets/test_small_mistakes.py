"""Small mistakes in folders, tables, names and lists: each is used as meant, or named.

Each case: change a folder of two classes, then ``python -m datasets check``.
"""

import json
import os
import shutil

import pytest

from dassl.utils import UserError
from datasets._core.mini import draw, make_mini
from tests.datasets.folders import load

pytestmark = pytest.mark.usefixtures("user_cache")

ROWS = "".join(f"{name}/{i}.png,{name}\n" for name in ("cat", "dog") for i in range(6))
TABLE = f"path,class\n{ROWS}"


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        for i in range(6):
            draw.save(tmp_path / "pets" / name / f"{i}.png", name, i)
    return tmp_path / "pets"


def refused(check, name, folder, words):
    code, out = check(name, folder)
    assert code == 1 and "PROBLEM" in out and words in out, out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TABLE.encode("utf-16"), "manifest.csv as UTF-8"),
        (TABLE.replace(",cat", ",café").encode("latin-1"), "manifest.csv as UTF-8"),
        (f"# pets\n{TABLE}", "csv:1: the first line must name the columns path, class"),
        (TABLE.replace("path,class", "path,class,note"), "'path,class,note'"),
        (TABLE.replace("\n", ",x\n", 3), "csv:1: the first line must name"),
        (f"{TABLE}path,class\n", "csv:14: the line with the names of the columns"),
        ("path,class\n~/cat.png,cat\n", "csv:2: the path '~/cat.png' must be relative"),
        ("path,class\nhttps://x.org/cat.png,cat\n", "csv:2: the path 'https:/x.org/cat.png'"),
        (f"{TABLE}cat/9.png,cat\n", "(manifest.csv) names images that are not in"),
        (f"{TABLE}cat,cat\n", "cat: it is no file"),
        (f"{TABLE}cat/0.png,\n", "csv:14: the class is ''"),
        (f'path,class\ncat/0.png,"cat\n{ROWS}', "csv:14: unexpected end of data"),
        (TABLE.replace(",cat", ",dog\u200b"), "two classes of the same name"),
        (TABLE.replace(",cat", ",Dog"), "two classes of the same name"),
        (TABLE.replace("class\n", "class,split\n"), "csv:2: expected 3 fields"),
        (
            "path,class,split\n" + ROWS.replace("\n", ",train\n"),
            "manifest.csv has no image for test",
        ),
        (None, "there is no table"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(folder, check, content, words):
    if content is not None:
        content = content.encode() if isinstance(content, str) else content
        (folder / "manifest.csv").write_bytes(content)
    refused(check, "Manifest", folder, words)


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{TABLE}",
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        TABLE.replace("\n", ",,\n"),
        TABLE.replace("path,class", " Path , CLASS"),
        TABLE.replace("\n", "\n\n"),
        TABLE.replace("cat/", "./cat//"),
        TABLE.replace(",cat", ',"c  at"').replace('"c  at"', '"cat "'),
    ],
)
def test_a_table_as_spreadsheets_write_it_is_read(folder, content):
    (folder / "manifest.csv").write_bytes(content.encode())
    assert load("Manifest", folder).classnames == ["cat", "dog"]


def test_blanks_within_a_name_are_one(folder):
    (folder / "manifest.csv").write_text(TABLE.replace(",cat", ',"old\n cat"'))
    assert load("Manifest", folder).classnames == ["dog", "old cat"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"classnames.txt": "cat\tkitten\ndog\tpuppy\n"}, "txt:1: 'cat\\tkitten' begins with"),
        ({"classnames.txt": "cat:kitten\ndog:puppy\n"}, "write  folder: name"),
        ({"classnames.txt": "cat,kitten\ndog,puppy\n"}, "write  folder: name"),
        ({"classnames.txt": ""}, "has 0 names, but there are 2 class folders"),
        ({"classnames.txt": "kitten\nKitten\n"}, "two classes of the same name"),
        ({"classnames.txt": "Cat: kitten\n"}, "txt:1: there is no class folder 'Cat'"),
        ({"classnames.yaml": "- a\n- b\n"}, "must map class folders to names"),
        ({"classnames.yaml": "cat: a\n---\ndog: b\n"}, "is not valid YAML"),
        ({"task_name.txt": "T\xe4sk"}, "task_name.txt as UTF-8"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(folder, check, files, words):
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("latin-1"))
    refused(check, "ImageFolder", folder, words)


def test_wordnet_ids_before_names_are_refused(tmp_path, check):
    for wnid in ("n01440764", "n01443537"):
        for i in range(4):
            draw.save(tmp_path / wnid / f"{i}.png", wnid, i)
    (tmp_path / "classnames.txt").write_text("n01440764 tench\nn01443537 goldfish\n")
    refused(check, "ImageFolder", tmp_path, "begins with the name of a class folder")


@pytest.mark.parametrize("name", ["classnames.yml", "classnames.json", "Classnames.txt"])
def test_a_file_of_names_that_is_not_read_is_reported(folder, check, name):
    (folder / name).write_text("cat: a\ndog: b\n")
    code, out = check("ImageFolder", folder)
    assert code == 0 and f"{name} is not read; class names are read from" in out
    (folder / "classnames.yaml").write_text("cat: a\n")
    (folder / "classnames.txt").write_text("x\ny\n")
    assert "classnames.txt is not read; class" in check("ImageFolder", folder)[1]
    assert load("ImageFolder", folder).classnames == ["a", "dog"]


def folder_as_image(folder):
    (folder / "cat" / "more.png").mkdir()


def same_link(folder):
    os.symlink(folder / "cat", folder / "kitten")


def dangling(folder):
    os.symlink(folder / "gone.png", folder / "dog" / "9.png")


def other_case(folder):
    shutil.copytree(folder / "cat", folder / "Cat")


def loop(folder):
    os.symlink(folder, folder / "again")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (folder_as_image, "more.png: it is no file"),
        (same_link, "are one and the same image"),
        (dangling, "cannot read the image"),
        (other_case, "two classes of the same name"),
        (loop, "again has no images but folders"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(folder, check, change, words):
    change(folder)
    refused(check, "ImageFolder", folder, words)


def test_all_problems_of_a_kind_are_reported_together(folder, check):
    for name in "abcdefghijkl":
        (folder / name).mkdir()
    code, out = check("ImageFolder", folder)
    assert code == 1 and "12 problems:" in out and "- and 2 more" in out
    assert out.count("has no images") == 10
    for name in "abcdefghijkl":
        (folder / name).rmdir()
    for name in ("cat", "dog"):
        for path in sorted((folder / name).iterdir())[1:]:
            path.unlink()
    assert check("ImageFolder", folder)[1].count("too few to be divided") == 2


def test_several_broken_files_are_reported_together(folder):
    dangling(folder)
    (folder / "cat" / "empty.png").touch()
    with pytest.raises(UserError, match=r"(?s)2 problems.*9.png.*empty.png|2 problems.*empty.*9"):
        load("ImageFolder", folder)


@pytest.mark.parametrize("change", [same_link, dangling])
def test_a_folder_that_is_put_right_can_be_used(folder, change):
    """The images of every class are looked at before a division of them is stored."""
    before = set(folder.rglob("*"))
    change(folder)
    with pytest.raises(UserError, match="image"):
        load("ImageFolder", folder, NUM_SHOTS=1)
    for path in set(folder.rglob("*")) - before:
        path.unlink()
    assert len(load("ImageFolder", folder, NUM_SHOTS=1).train_x) == 2


@pytest.mark.parametrize("parts", [("Train", "Test"), ("training", "testing"), ("TRAIN", "test")])
def test_parts_are_known_by_other_spellings(folder, parts):
    for part in parts:
        shutil.copytree(folder, folder.parent / "parts" / part)
    data = load("ImageFolder", folder.parent / "parts")
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [10, 2, 12]


def test_an_image_in_train_and_test_is_refused(tmp_path, check):
    (pets,) = make_mini("OxfordPets", tmp_path, per_class=4)
    train, test = (pets / "annotations" / f"{part}.txt" for part in ("trainval", "test"))
    test.write_text(test.read_text() + train.read_text().splitlines()[0] + "\n")
    refused(check, "OxfordPets", tmp_path, "1 images are in ")


def test_an_image_in_train_and_test_of_a_published_split_is_reported(folder, check, capsys):
    entries = [[f"{name}/0.png", label, name] for label, name in enumerate(("cat", "dog"))]
    content = {"train": entries, "val": [], "test": entries[:1]}
    (folder / "split_zhou_ImageFolder.json").write_text(json.dumps(content))
    refused(check, "ImageFolder", folder, "1 images are in train and test: cat/0.png")
    load("ImageFolder", folder)
    assert "1 images are in train and test, such as cat/0.png" in capsys.readouterr().out


def test_a_yaml_without_a_dataset_is_named(tmp_path, check):
    (tmp_path / "a.yaml").write_text("TRAINER: {NAME: CoOp}\n")
    assert check(str(tmp_path / "a.yaml"), tmp_path)[0] == 2
