"""Columns of a table that are multi-label or ordinal: DATASET.COLUMNS."""

import random
from collections import Counter

import pytest

from dassl.data.label_kinds import MultiLabel, Ordinal, SingleLabel
from dassl.utils import UserError
from datasets._core.label_columns import LabelColumn
from datasets._core.shots import draw_shots
from tests.datasets.folders import load
from tests.reference.label_kinds import draw_sets

pytestmark = pytest.mark.usefixtures("user_cache")

TAGS = {"NAME": "tags", "KIND": "multi_label", "SEPARATOR": "|"}
SIZE = {"NAME": "size", "KIND": "ordinal", "CLASSES": ["small", "medium", "large"]}
HEAD = "path,tags,size,glasses"


@pytest.fixture
def table(tmp_path):
    """Writes images and a table of them; returns the data folder."""

    def write(lines, head=HEAD):
        folder = tmp_path / "things"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for line in lines:
            (folder / line.split(",")[0]).write_bytes(line.encode())
        (folder / "manifest.csv").write_text("\n".join([head, *lines]) + "\n")
        return folder

    return write


def things(count=80, seed=0):
    """Lines of a table with tags, some without any of them, sizes, and a yes or no."""
    rng, lines = random.Random(seed), []
    for i in range(count):
        tags = [
            name for name, p in (("wet", 0.6), ("old", 0.4), ("red hot", 0.2)) if rng.random() < p
        ]
        size, glasses = rng.choice(SIZE["CLASSES"]), rng.choice(["yes", "no", ""])
        lines.append(f"images/{i}.png,{'|'.join(tags) or '|'},{size},{glasses}")
    return lines


def test_kinds_of_the_columns(table):
    lines = things()
    data = load("TaskColumns", table(lines), COLUMNS=[TAGS, SIZE])
    tags, size, glasses = data.space.tasks
    assert [type(t.kind) for t in data.space.tasks] == [MultiLabel, Ordinal, SingleLabel]
    assert tags.classnames == ("old", "red hot", "wet")
    assert size.classnames == ("small", "medium", "large") and glasses.classnames == ("no", "yes")
    fields = {line.split(",")[0]: line.split(",")[1:] for line in lines}
    items = [*data.train_x, *data.val, *data.test]
    for item in items:
        own = fields["images/" + item.impath.rsplit("/", 1)[1]][item.task]
        classes = data.space.kinds[item.task].classes_of(item.label)
        names = {data.space.tasks[item.task].classnames[c] for c in classes}
        assert names == ({n for n in own.split("|") if n} if item.task == 0 else {own})
    assert len({(d.impath, d.task) for d in items}) == len(items)
    assert Counter(d.task for d in items)[0] == len(lines)


def test_the_split_is_stored_and_the_order_may_change(table):
    folder = table(things())
    first = load("TaskColumns", folder, COLUMNS=[TAGS])
    assert first.space.tasks[1].classnames == ("large", "medium", "small")
    again = load("TaskColumns", folder, COLUMNS=[SIZE, TAGS])
    assert again.space.tasks[1].classnames == ("small", "medium", "large")
    keys = [{(d.impath, d.task, d.classname) for d in data.train_x} for data in (first, again)]
    assert keys[0] == keys[1]


def test_a_draw_has_the_shots_of_every_class_by_the_rule(table):
    folder = table(things(200))
    everything = load("TaskColumns", folder, COLUMNS=[TAGS, SIZE])
    drawn = load("TaskColumns", folder, COLUMNS=[TAGS, SIZE], NUM_SHOTS=3).train_x
    kind = everything.space.kinds[0]
    counts = Counter(c for d in drawn if d.task == 0 for c in kind.classes_of(d.label) or ("none",))
    assert min(counts.values()) == 3 and set(counts) == {0, 1, 2, "none"}
    assert Counter(d.classname for d in drawn if d.task == 1) == dict.fromkeys(SIZE["CLASSES"], 3)
    tags = [d for d in everything.train_x if d.task == 0]
    for seed in range(5):
        images = [(d.impath, set(kind.classes_of(d.label))) for d in tags]
        found = draw_shots(tags, 4, random.Random(seed), [kind])
        assert [d.impath for d in found] == draw_sets(images, 4, seed)


def test_a_multi_label_task_does_not_change_the_draws_of_the_others(table):
    data = load("TaskColumns", table(things()), COLUMNS=[TAGS, SIZE])
    kinds, others = data.space.kinds, [d for d in data.train_x if d.task]
    mixed = draw_shots(data.train_x, 2, random.Random(0), kinds)
    alone = draw_shots(others, 2, random.Random(0), kinds)
    assert [d for d in mixed if d.task] == alone


def test_a_suite_takes_columns_in_the_entry_of_the_table(table):
    tags = {**TAGS, "THRESHOLD": 0.3}
    member = {"NAME": "TaskColumns", "ROOT": str(table(things())), "COLUMNS": [tags]}
    data = load("Suite", "", MEMBERS=[member])
    assert data.space.kinds[0].threshold == 0.3
    assert [kind.name for kind in data.space.kinds] == ["multi_label", *["single_label"] * 2]


LINES = ["images/1.png,a|b,small,yes", "images/2.png,a,large,no"]


@pytest.mark.parametrize(
    "columns, message",
    [
        ([{**TAGS, "SEPARATOR": ""}], r"SEPARATOR of DATASET.COLUMNS\[0\].*''"),
        ([{**TAGS, "SEPARATOR": ";"}], "manifest.csv.*'tags'.*';'"),
        ([{**TAGS, "THRESHOLD": 2}], "THRESHOLD.*2"),
        ([{**TAGS, "CLASSES": ["a", "b", "c"]}], "manifest.csv.*'tags'.*c"),
        ([{**TAGS, "CLASSES": ["a"]}], "manifest.csv:2.*'b'"),
        ([{**TAGS, "NAME": "tgs"}], "tgs.*tags"),
        ([TAGS, TAGS], r"COLUMNS\[1\].*'tags'"),
        ([{"NAME": "tags", "KIND": "multilabel"}], "multilabel.*multi_label"),
        ([{"NAME": "tags", "KIND": ["multi_label"]}], "KIND.*multi_label"),
        ([{**SIZE, "SEPARATOR": ";"}], "SEPARATOR.*CLASSES"),
        ([{"NAME": "size", "KIND": "ordinal"}], "ordinal.*CLASSES"),
        ([{**SIZE, "CLASSES": ["small", "larger"]}], "manifest.csv:3.*'size'.*large"),
        ([{**SIZE, "CLASSES": ["small", "small"]}], "CLASSES.*small"),
        ([{**SIZE, "CLASSES": ["small", " "]}], "no two alike.*' '"),
        ([{**SIZE, "CLASSES": "small"}], "CLASSES.*'small'"),
        (["tags"], "NAME.*KIND.*'tags'"),
    ],
)
def test_bad_columns_are_refused(table, columns, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        load("TaskColumns", table(LINES), COLUMNS=columns)


def test_a_class_without_positive_training_images_is_refused(table):
    lines = ["images/1.png,a,train", "images/2.png,a|b,test", "images/3.png,|,train"]
    with pytest.raises(UserError, match=r"'tags'.*b"):
        load("TaskColumns", table(lines, "path,tags,split"), COLUMNS=[TAGS])


def test_columns_of_another_dataset_are_refused(user_cache):
    with pytest.raises(UserError, match=r"DATASET.COLUMNS.*DigitIdentity"):
        load("Digits7", "", COLUMNS=[TAGS])


def test_a_class_that_is_not_listed_is_named_with_its_line():
    column = LabelColumn("circles", "ordinal", classes=("one", "two"))
    with pytest.raises(UserError, match=r"^manifest\.csv:4: no class of 'circles' named 'three'"):
        column.check_field("three", "manifest.csv:4")
