"""A user's own images in folders: ImageFolder and TaskFolders."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.utils import UserError
from datasets._core.mini import make_mini
from tests.datasets.folders import counts, fill, in_part, load

pytestmark = pytest.mark.usefixtures("user_cache")


def names_of(items):
    return sorted({Path(item.impath).parts[-2] for item in items})


def test_classes_in_the_root(bolts):
    data = load("ImageFolder", bolts, NUM_SHOTS=2)
    assert data.classnames == ["carriage", "eye_bolt", "hex"]
    assert data.space.tasks[0].name == "my bolts"
    assert counts(data) == [6, 4, 1 + 2 + 3]
    again = load("ImageFolder", bolts, NUM_SHOTS=2)  # its own files are no class folder
    assert again.identity.draw == data.identity.draw and again.split == "own"
    assert {p.name for p in bolts.iterdir() if p.is_file()} == {"split_own_ImageFolder.json"}


def test_other_files_beside_and_among_the_images_are_left_out(bolts):
    (bolts / "notes.txt").write_text("x")
    (bolts / "hex" / "Thumbs.db").write_bytes(b"x")
    (bolts / "hex" / "._00.jpg").write_bytes(b"x")
    (bolts / ".git").mkdir()
    (bolts / "hex" / "UPPER.JPG").write_bytes(b"x")
    data = load("ImageFolder", bolts)
    assert sum(counts(data)) == 21 and data.num_classes == 3


def test_divided_folders_are_taken_as_they_are(tmp_path):
    fill(tmp_path / "a" / "train", {"x": 3, "y": 2})
    fill(tmp_path / "a" / "valid", {"x": 1, "y": 1})
    fill(tmp_path / "a" / "test", {"x": 2})
    data = load("ImageFolder", tmp_path / "a")
    assert counts(data) == [5, 2, 2] and data.split == "official"
    assert all("/valid/" in item.impath for item in data.val)
    (tmp_path / "a" / "train" / "x" / "99.jpg").write_bytes(b"x")
    assert counts(load("ImageFolder", tmp_path / "a")) == [6, 2, 2]


def test_validation_images_are_held_out(tmp_path):
    fill(tmp_path / "a" / "train", {"x": 10, "y": 5})
    fill(tmp_path / "a" / "test", {"x": 1, "y": 2})
    data = load("ImageFolder", tmp_path / "a")
    assert [in_part(data.val, label) for label in (0, 1)] == [2, 1]
    assert counts(data) == [12, 3, 3] and data.split == "own"
    assert load("ImageFolder", tmp_path / "a").identity.draw == data.identity.draw


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path / "a", {"train": 5, "bus": 5})
    assert load("ImageFolder", tmp_path / "a").classnames == ["bus", "train"]


def test_given_names(bolts):
    (bolts / "task_name.txt").write_text("kind of bolt\n")
    (bolts / "classnames.txt").write_text("\ufeffround head\nring\nsix sides\n", encoding="utf-8")
    data = load("ImageFolder", bolts)
    assert data.space.tasks[0].name == "kind of bolt"
    assert data.classnames == ["round head", "ring", "six sides"]
    assert {item.classname for item in data.test if "/hex/" in item.impath} == {"six sides"}
    (bolts / "classnames.txt").write_text("hex: six sides\n")
    assert load("ImageFolder", bolts).classnames == ["carriage", "eye_bolt", "six sides"]
    (bolts / "classnames.yaml").write_text("{hex: A, eye_bolt: B}")
    assert load("ImageFolder", bolts).classnames == ["carriage", "B", "A"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classnames.txt", "a\nb\n", "has 2 names, but there are 3 class folders"),
        ("classnames.txt", "hex: a\nnut: b\n", r"classnames.txt:2: there is no class folder 'nut'"),
        ("classnames.txt", "hex: a\n\neye_bolt: \n", r"classnames.txt:3: .*"),
        ("classnames.txt", "hex: eye bolt\n", "'eye_bolt' and 'hex' of .* both called 'eye bolt'"),
        ("classnames.txt", b"\xff\xfe", r"cannot read .*classnames.txt"),
        ("classnames.yaml", "[1]", "must map class folders to names"),
        ("classnames.yaml", "{hex: ''}", "'hex' gets no name"),
        ("classnames.yaml", "{", "is not valid YAML"),
        ("classnames.yaml", "{nut: a}", "no class folder 'nut'"),
    ],
)
def test_bad_names_are_refused(bolts, file, text, message):
    (bolts / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        load("ImageFolder", bolts)


def folder_with(tmp_path, change):
    fill(tmp_path / "a", {"x": 4, "y": 4})
    change(tmp_path / "a")
    return tmp_path / "a"


def loop(root):
    os.symlink(root / "loop", root / "loop")


def only_text(root):
    (root / "z").mkdir()
    (root / "z" / "readme.md").touch()


def too_deep(root):
    fill(root / "z", {"inner": 4})


def latin_folder(root):
    os.mkdir(os.fsencode(root) + b"/\xe4pfel")


def latin_file(root):
    (root / "x" / "\udce4.jpg").write_bytes(b"x")


def no_test(root):
    fill(root / "train", {"x": 4})
    fill(root / "val", {"x": 4})


def strange_class(root):
    fill(root / "train", {"x": 4})
    fill(root / "test", {"x": 4, "new": 1})


def normalised(root):
    fill(root / "train", {"gr\u00fcn": 4})
    fill(root / "test", {"gru\u0308n": 4})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (loop, "loop is a link that leads nowhere or to itself"),
        (only_text, r"class folder .*/z has no images; fill it or remove it .*\.jpg"),
        (too_deep, "/z has no images but folders, such as inner; expected"),
        (latin_folder, "is not valid UTF-8"),
        (latin_file, "is not valid UTF-8; rename the file"),
        (lambda root: fill(root, {"z": 3}), "/z has 3 images, too few"),
        (lambda root: fill(root, {"a_b": 4, "a b": 4}), "both called 'a b'"),
        (no_test, "but no test; evaluation needs one: rename val to test"),
        (strange_class, "has class folders that train has not: new$"),
        (normalised, "that train has not: .*; .* another Unicode normalisation"),
    ],
)
def test_bad_folders_are_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load("ImageFolder", folder_with(tmp_path, change))


def test_links_to_folders_elsewhere_work(tmp_path, bolts):
    (tmp_path / "b").mkdir()
    for name in ("hex", "carriage"):
        os.symlink(bolts / name, tmp_path / "b" / name)
    os.symlink(tmp_path / "b", bolts / "hex" / "back")  # a way round in a circle
    assert load("ImageFolder", tmp_path / "b").classnames == ["carriage", "hex"]


def test_task_folders(tmp_path):
    make_mini("TaskFolders", tmp_path / "t")
    (tmp_path / "t" / "kind_of_leaf" / "task_name.txt").write_text("tree by its leaf")
    data = load("TaskFolders", tmp_path / "t", NUM_SHOTS=1)
    assert [task.name for task in data.space.tasks] == ["kind of bolt", "tree by its leaf"]
    assert data.space.sizes == [3, 2] and len(data.train_x) == 5
    assert names_of(d for d in data.test if d.task == 1) == ["maple", "oak"]
    new = load("TaskFolders", tmp_path / "t", SUBSAMPLE_TASKS="new", SUBSAMPLE_CLASSES="base")
    assert new.classnames == ["maple"]
    (tmp_path / "e").mkdir()
    with pytest.raises(UserError, match="expected one folder per task"):
        load("TaskFolders", tmp_path / "e")


quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


names = st.sampled_from(["a", "b c", "b_c", "train", "test", "val", "é", ".h", "\udcff", "1.jpg"])
trees = st.recursive(
    st.sampled_from([b"x", b"", "link"]),
    lambda inner: st.dictionaries(names, inner, max_size=5),
    max_leaves=25,
)


def plant(folder, tree):
    folder.mkdir(parents=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            plant(folder / name, content | {f"{i}.png": b"x" for i in range(len(content) * 2)})
        elif content == "link":
            os.symlink(random.choice([folder, folder / name]), folder / name)
        else:
            (folder / name).write_bytes(content)


@quick
@given(tree=st.dictionaries(names, trees, max_size=5), kind=st.sampled_from(["Image", "Task"]))
def test_any_folder_gives_a_dataset_or_a_user_error(tmp_path_factory, tree, kind):
    root = tmp_path_factory.mktemp("any") / "root"
    plant(root, tree)
    try:
        data = load(f"{kind}Folder{'s' * (kind == 'Task')}", root)
    except UserError:
        return
    items = [*data.train_x, *data.val, *data.test]
    assert items and all(Path(item.impath).stat().st_size > 0 for item in items)
    assert len({(item.impath, item.task) for item in items}) == len(items)
