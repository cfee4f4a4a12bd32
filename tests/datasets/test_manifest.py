"""A user's own images in a table: Manifest."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.utils import UserError
from datasets._core.mini import make_mini
from tests.datasets.folders import counts, load

pytestmark = pytest.mark.usefixtures("user_cache")


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
        ("path,class,split\nimages/1.png,red,\n", r"manifest.csv:2: the split is empty"),
        (
            "path,class,split\nimages/9.png,red,test\n",
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
