"""A user's own images: folders, folders of tasks, a table, a suite in a YAML."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.config import get_cfg_default
from dassl.data import build_dataset
from dassl.utils import UserError
from datasets._core.mini import make_mini
from tests.datasets.folders import fill, in_part, load


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def names_of(items):
    return sorted({Path(item.impath).parts[-2] for item in items})


def counts(dataset):
    return [len(part) for part in (dataset.train_x, dataset.val, dataset.test)]


@pytest.fixture
def bolts(tmp_path):
    fill(tmp_path / "my_bolts", {"hex": 10, "eye_bolt": 6, "carriage": 4})
    return tmp_path / "my_bolts"


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
        (strange_class, "has class folders that train has not: new"),
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


TABLE = """\
path,class,task
images/1.png,red,colour
images/2.png,blue,colour
"""


@pytest.fixture
def table(tmp_path):
    """A folder of images, and a way to put a table into it."""
    for i in range(1, 9):
        path = tmp_path / "m" / "images" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    def write(text):
        content = text.encode() if isinstance(text, str) else text
        (tmp_path / "m" / "manifest.csv").write_bytes(content)
        return tmp_path / "m"

    return write


def test_manifest_without_a_division(tmp_path):
    make_mini("Manifest", tmp_path / "m")
    data = load("Manifest", tmp_path / "m", NUM_SHOTS=1)
    assert [task.name for task in data.space.tasks] == ["kind of bolt", "kind of leaf"]
    assert data.classnames == ["carriage", "eye_bolt", "hex", "maple", "oak"]
    assert len(data.train_x) == 5 and data.split == "own"
    for item in data.test:
        assert Path(item.impath).name.startswith(item.classname)


def test_manifest_with_a_division(table):
    rows = ["Split, Class ,PATH", '"train","a, b",images/1.png', "", "Valid,c,images/2.png"]
    rows += ["test,c,images/3.png", "train,c,images/4.png"]
    data = load("Manifest", table("\ufeff" + "\r\n".join(rows)))
    assert data.classnames == ["a, b", "c"] and data.split == "official"
    assert counts(data) == [2, 1, 1]
    assert data.space.tasks[0].name == "m"


def test_row_taken_out_of_the_table_is_noticed(table):
    rows = [f"images/{i}.png,thing" for i in range(1, 9)]
    load("Manifest", table("\n".join(["path,class", *rows])))
    with pytest.raises(UserError, match=r"has 1 images that are no longer listed: images/8\.png"):
        load("Manifest", table("\n".join(["path,class", *rows[:-1]])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no images"),
        ("path,class\n", "lists no images"),
        ("path,label\nx,y\n", r"manifest.csv:1: the first line must name the columns path, class"),
        ("path,class,class\nx,y,z\n", r"manifest.csv:1: the first line"),
        (TABLE + "images/3.png,red\n", r"manifest.csv:4: expected 3 fields \(path, class, task\)"),
        (TABLE + "images/3.png,,colour\n", r"manifest.csv:4: the class is ''"),
        (TABLE + "../3.png,red,colour\n", r"manifest.csv:4: the path .* stay inside it"),
        (TABLE + "/etc/passwd,red,colour\n", r"manifest.csv:4: the path .* stay inside it"),
        (TABLE + "C:\\x.png,red,colour\n", r"manifest.csv:4: the path .* stay inside it"),
        (TABLE + "images/1.png,blue,colour\n", r":4: 'images/1.png' is already listed in .*:2"),
        (TABLE + '"images/3.png,red,colour\n', r"manifest.csv:4: "),
        ("path,class,split\nimages/1.png,red,dev\n", r"manifest.csv:2: the split 'dev' is not"),
        ("path,class,split\nimages/1.png,red,\n", r"manifest.csv:2: the split is ''"),
        (
            "path,class,split\nimages/9.png,red,train\n",
            r"images that are not in .*/9",
        ),
        (b"path,class\n\xff.png,red\n", r"cannot read .*manifest.csv"),
        (TABLE, "class 'blue' of .*manifest.csv has 1 images, too few"),
    ],
)
def test_bad_table_is_named_with_its_line(table, text, message):
    with pytest.raises(UserError, match=message):
        load("Manifest", table(text))


cells = st.sampled_from(
    ["images/1.png", "images/2.png", "red", "blue", "train", "test", "../x", "", '"', "\0", "é"]
)
lines = st.lists(st.lists(cells, min_size=1, max_size=5).map(",".join), max_size=8)
tables = st.one_of(
    st.binary(max_size=60),
    lines.map(lambda rows: "\n".join(["path,class,task,split", *rows]).encode()),
    lines.map(lambda rows: "\r\n".join(["path,class,split", *rows]).encode()),
)
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(content=tables)
def test_any_table_gives_a_dataset_or_a_user_error(table, content):
    root = table(content)
    (root / "split_own_Manifest.json").unlink(missing_ok=True)
    try:
        data = load("Manifest", root)
    except UserError:
        return
    for item in [*data.train_x, *data.val, *data.test]:
        assert item.impath in (f"{root}/images/1.png", f"{root}/images/2.png")
        assert item.classname in data.space.tasks[item.task].classnames


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


def test_suite_of_ones_own(tmp_path, bolts):
    make_mini("OxfordPets", tmp_path / "data", per_class=4)
    fill(tmp_path / "data" / "leaves", {"well": 4, "ill": 4})
    members = [
        {"NAME": "OxfordPets", "TASK_NAME": "pet"},
        {"ROOT": "leaves", "TEMPLATE": "a leaf that is {}.", "METRIC": "mean_acc"},
        {"ROOT": str(bolts), "NAME": "ImageFolder", "TASK_NAME": "kind of bolt"},
    ]
    suite = load("Suite", tmp_path / "data", MEMBERS=members, NUM_SHOTS=1)
    assert [task.name for task in suite.space.tasks] == ["pet", "leaves", "kind of bolt"]
    assert suite.space.sizes == [37, 2, 3] and len(suite.train_x) == 42
    assert suite.space.tasks[1].templates == ("a leaf that is {}.",)
    assert [task.metric for task in suite.space.tasks] == ["mean_acc", "mean_acc", "overall_acc"]
    new = load(
        "Suite",
        tmp_path / "data",
        MEMBERS=members,
        SUBSAMPLE_TASKS="new",
        TASK_NAMES=("a", "b", "c"),
    )
    assert [task.name for task in new.space.tasks] == ["c"]
    cfg = get_cfg_default()
    cfg.merge_from_dict({"DATASET": {"ROOT": str(tmp_path / "data"), "MEMBERS": members}})
    cfg.DATASET.NAME = "Workshop"
    assert (
        build_dataset(cfg).identity.draw
        == load("Suite", tmp_path / "data", MEMBERS=members).identity.draw
    )
    cfg.DATASET.NAME = "OxfordPets"
    with pytest.raises(UserError, match=r"takes no DATASET\.MEMBERS"):
        build_dataset(cfg)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((), "takes its datasets from DATASET.MEMBERS"),
        (["OxfordPets"], r"MEMBERS\[0\] must hold keys"),
        ([{"NAEM": "x"}], r"no key of DATASET.MEMBERS\[0\] named 'NAEM'; did you mean NAME"),
        ([{"NAME": "OxfordPet"}], "did you mean OxfordPets"),
        ([{"NAME": "Suite"}], "cannot hold a Suite"),
        ([{"ROOT": 5, "NAME": "ImageFolder"}], "there is no folder .*/5"),
        ([{"METRIC": "f1", "ROOT": "."}], "METRIC .*'f1'"),
        ([{"TEMPLATE": "a photo", "ROOT": "."}], "must hold {} once"),
        ([{"TASK_NAME": " ", "ROOT": "."}], "TASK_NAMES must name each of the 1 tasks"),
    ],
)
def test_bad_suite_is_refused(bolts, members, message):
    with pytest.raises(UserError, match=message):
        load("Suite", bolts, MEMBERS=members)
