"""Images that lie where none is looked for, names that are no text, tables that are no CSV."""

import os

import pytest

from dassl.utils import UserError
from datasets._core.mini import draw
from tests.datasets.folders import load

pytestmark = pytest.mark.usefixtures("user_cache")


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        for i in range(6):
            draw.save(tmp_path / name / f"{i}.png", name, i)
    return tmp_path


def nested(root):
    draw.save(root / "cat" / "more" / "deep" / "7.png", "cat", 7)


def no_suffix(root):
    draw.save(root / "cat" / "7.png", "cat", 7)
    (root / "cat" / "7.png").rename(root / "cat" / "seven")


def strange_suffix(root):
    for i in range(2):
        draw.save(root / "cat" / f"7{i}.png", "cat", 7)
        (root / "cat" / f"7{i}.png").rename(root / "cat" / f"7{i}.picture")


def hidden_class(root):
    draw.save(root / ".NET" / "7.png", "cat", 7)


def hidden_image(root):
    draw.save(root / "cat" / ".7.png", "cat", 7)
    for name in ("._0.png", ".DS_Store"):  # written by macOS, and no images
        (root / "cat" / name).write_bytes(b"x")


def loose(root):
    draw.save(root / "7.png", "cat", 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nested, "not read: 1 image in .*, such as cat/more/deep/7.png"),
        (no_suffix, "not read: 1 image in .*, such as cat/seven"),
        (strange_suffix, "not read: 2 images in .*, such as cat/70.picture"),
        (hidden_class, "not read: 1 image in .*, such as .NET/7.png"),
        (hidden_image, "not read: 1 image in .*, such as cat/.7.png"),
        (loose, "not read: 1 image in .*, such as 7.png"),
    ],
)
def test_unread_images_are_counted(folder, check, capsys, change, words):
    change(folder)
    code, out = check("ImageFolder", folder)
    assert code == 0
    load("ImageFolder", folder)
    for text in (out, capsys.readouterr().out):
        with pytest.raises(UserError, match=words):
            raise UserError(text)


@pytest.mark.parametrize(("name", "folders"), [("TaskFolders", ("a", "b")), ("ImageFolder", ())])
def test_images_in_the_root_of_tasks_or_parts_are_counted(tmp_path, check, name, folders):
    for part in folders or ("train", "val", "test"):
        for i in range(4):
            draw.save(tmp_path / part / "cat" / f"{i}.png", part, i)
    loose(tmp_path)
    hidden_class(tmp_path)
    code, out = check(name, tmp_path)
    assert code == 0 and out.count("not read: 2 images in") == 1 and "such as 7.png" in out


def test_the_report_of_a_dataset_holds_what_is_not_read(folder, check):
    nested(folder)
    lines = check("ImageFolder", folder)[1].splitlines()
    assert lines[0].startswith("ImageFolder") and "not read: " in lines[1]


def test_other_files_are_no_images(folder, check):
    (folder / "cat" / "notes").write_text("x")
    (folder / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_bytes(b"x")
    assert "not read" not in check("ImageFolder", folder)[1]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPEG"])
def test_suffixes_of_jpeg_are_read(folder, check, suffix):
    for name in ("cat", "dog"):
        draw.save(folder / name / "8.jpg", name, 8)
        (folder / name / "8.jpg").rename(folder / name / f"8{suffix}")
    code, out = check("ImageFolder", folder)
    assert code == 0 and f"12 .png, 2 {suffix.lower()}" in out


@pytest.mark.parametrize("spellings", [("val", "validation"), ("val", "valid")])
def test_two_folders_for_validation_are_refused(tmp_path, check, spellings):
    for part in ("train", "test", *spellings):
        draw.save(tmp_path / part / "cat" / "0.png", "cat", 0)
    code, out = check("ImageFolder", tmp_path)
    assert code == 1 and f"folders {' and '.join(spellings)}, which both mean" in out


def test_a_folder_beside_the_parts_is_named(tmp_path, check):
    for part in ("train", "test", "val", "extra"):
        draw.save(tmp_path / part / "cat" / "0.png", "cat", 0)
    code, out = check("ImageFolder", tmp_path)
    assert code == 0 and "the folders extra beside train, val, test are not read" in out


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat: no\ndog: yes\n", ["no", "yes"]),
        ("cat: null\ndog: ~\n", ["null", "~"]),
        ("cat: 010\ndog: 1_000\n", ["010", "1_000"]),
        ("cat: 'a  b'\ndog: 2024-01-01\n", ["a b", "2024-01-01"]),
    ],
)
def test_names_are_taken_as_they_are_written(folder, text, names):
    (folder / "classnames.yaml").write_text(text)
    assert load("ImageFolder", folder).classnames == names


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("classnames.yaml", "cat: [a, b]\n", "yaml:1: a list is no name"),
        ("classnames.yaml", "cat: a\ndog: {b: c}\n", "yaml:2: a mapping is no name"),
        ("classnames.yaml", "cat: a\ncat: b\n", "yaml:2: .*'cat' is named a second time"),
        ("classnames.yaml", "cat: a\ndog:\n", "yaml:2: .*'dog' gets no name"),
        ("classnames.txt", "cat: a\ncat: b\n", "txt:2: .*'cat' is named a second time"),
    ],
)
def test_what_is_no_name_is_refused_with_its_line(folder, file, text, words):
    (folder / file).write_text(text)
    with pytest.raises(UserError, match=words):
        load("ImageFolder", folder)


def test_numbered_folders_are_named_by_number(tmp_path):
    for label in range(11):
        for i in range(4):
            draw.save(tmp_path / str(label) / f"{i}.png", str(label), i)
    (tmp_path / "classnames.txt").write_text("\n".join(f"name {n}" for n in range(11)))
    data = load("ImageFolder", tmp_path)
    for item in data.test:
        assert item.impath.split("/")[-2] == item.classname.removeprefix("name ")


def spell(path):
    return f"path,class\n./{path},cat\n" + "".join(f"cat/{i}.png,cat\n" for i in range(6))


def link(root):
    os.symlink(root / "cat" / "0.png", root / "cat" / "again.png")
    return "path,class\ncat/again.png,cat\n" + "".join(f"cat/{i}.png,cat\n" for i in range(6))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lambda root: spell("cat/0.png"), "'cat/0.png' is already listed"),
        (lambda root: spell("cat//0.png"), "'cat/0.png' is already listed"),
        (lambda root: spell("dog/../cat/0.png"), "'cat/0.png' is already listed|stay inside"),
        (link, "are one and the same image"),
        (lambda root: "path;class\ncat/0.png;cat\n", "csv:1: this looks separated by ';'"),
        (lambda root: "path\tclass\ncat/0.png\tcat\n", "csv:1: this looks separated by"),
        (lambda root: "cat/0.png,cat\n", "csv:1: .*the table has no header"),
        (lambda root: "path,class,split\ncat/0.png,cat,\n", "csv:2: the split is empty"),
        (
            lambda root: "path,class\ncat\\0.png,cat\n",
            "csv:2: .* has backslashes; write it with forward slashes: 'cat/0.png'",
        ),
    ],
)
def test_tables_that_cannot_be_right(folder, check, text, words):
    (folder / "manifest.csv").write_text(text(folder))
    code, out = check("Manifest", folder)
    assert code == 1
    with pytest.raises(UserError, match=words):
        raise UserError(out)


def test_one_image_in_train_and_test_through_a_link_is_refused(tmp_path, check):
    for part in ("train", "val", "test"):
        for i in range(2):
            draw.save(tmp_path / part / "cat" / f"{i}.png", part, i)
    os.symlink(tmp_path / "train/cat/0.png", tmp_path / "test/cat/link.png")
    code, out = check("ImageFolder", tmp_path)
    assert code == 1 and "train/cat/0.png and test/cat/link.png" in out


def test_a_folder_that_may_not_be_read(folder, monkeypatch):
    read = os.listdir

    def refuse(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(UserError, match=r"cannot list the folder .*cat: Permission denied"):
        load("ImageFolder", folder)
