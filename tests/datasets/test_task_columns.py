"""A table with a column of labels per task: TaskColumns."""

import random
from collections import Counter, defaultdict

import pytest

from dassl.utils import UserError
from datasets._core.mini import make_mini
from tests.datasets.folders import load

pytestmark = pytest.mark.usefixtures("user_cache")

FACES = {"age group": ("child", "adult", "old"), "glasses": ("yes", "no"), "mood": ("glad", "sad")}


@pytest.fixture
def table(tmp_path):
    """Writes images and a table of them; returns the data folder."""

    def write(lines, head="path,age_group,glasses,mood"):
        folder = tmp_path / "faces"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for line in lines:
            name = line.split(",")[0]
            if name.startswith("images/"):
                (folder / name).write_bytes(name.encode())
        (folder / "manifest.csv").write_text("\n".join([head, *lines]) + "\n")
        return folder

    return write


def faces(count=60, seed=0):
    """Lines of a table in which about a third of the labels are missing."""
    rng = random.Random(seed)
    return [
        ",".join(
            [f"images/{i}.png"]
            + [rng.choice(names) if rng.random() < 0.7 else "" for names in FACES.values()]
        )
        for i in range(count)
    ]


def test_an_image_counts_in_the_tasks_that_it_is_labelled_in(table):
    lines = faces()
    data = load("TaskColumns", table(lines))
    assert {t.name: t.classnames for t in data.space.tasks} == {
        name: tuple(sorted(classes)) for name, classes in FACES.items()
    }
    wanted = {
        (line.split(",")[0], t, label)
        for line in lines
        for t, label in enumerate(line.split(",")[1:])
        if label
    }
    items = [*data.train_x, *data.val, *data.test]
    found = {("images/" + d.impath.rsplit("/", 1)[1], d.task, d.classname) for d in items}
    assert found == wanted and len(items) == len(wanted)


def test_images_are_divided_with_all_their_labels_and_classes_in_proportion(table):
    data = load("TaskColumns", table(faces(400)))
    parts = [data.train_x, data.val, data.test]
    images = [{d.impath for d in part} for part in parts]
    assert not images[0] & images[1] and not images[0] & images[2] and not images[1] & images[2]
    sizes = defaultdict(list)
    for part in parts:
        counts = Counter((d.task, d.classname) for d in part)
        for key in {(d.task, d.classname) for d in data.test}:
            sizes[key].append(counts[key])
    for counts in sizes.values():
        shares = [n / sum(counts) for n in counts]
        assert shares == pytest.approx((0.5, 0.2, 0.3), abs=0.06)


def test_few_images_are_divided_again_until_each_class_is_trained_and_tested(table):
    lines = [f"images/{i}.png,m{i % 2},s{i % 3}" for i in range(12)]
    data = load("TaskColumns", table(lines, "path,mood,size"))
    for part in (data.train_x, data.test):
        assert {d.classname for d in part} == {"m0", "m1", "s0", "s1", "s2"}


def test_draws_are_per_task_unless_images_are_shared(table):
    folder = table(faces(200))
    alone = load("TaskColumns", folder, NUM_SHOTS=2)
    counts = Counter((d.task, d.classname) for d in alone.train_x)
    assert set(counts.values()) == {2} and len(counts) == 7
    shared = load("TaskColumns", folder, NUM_SHOTS=2, SHARE_SHOTS=True)
    drawn = {d.impath for d in alone.train_x}
    labels = [(d.impath, d.task) for d in load("TaskColumns", folder).train_x]
    assert sorted((d.impath, d.task) for d in shared.train_x) == sorted(
        (path, task) for path, task in labels if path in drawn
    )
    assert len(shared.train_x) > len(alone.train_x)


def test_the_table_may_say_which_images_are_for_what(table):
    lines = ["images/1.png,train,a,x", "images/2.png,train,b,y", "images/3.png,test,a,"]
    lines += ["images/4.png,test,b,x", "images/5.png,val,,y"]
    data = load("TaskColumns", table(lines, "file,Split,letter,side"))
    assert data.split == "official" and [t.name for t in data.space.tasks] == ["letter", "side"]
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [4, 1, 3]


def test_images_without_any_label_are_counted(table, capsys):
    data = load("TaskColumns", table([*faces(30), "images/90.png,,,", "images/91.png, ,,"]))
    out = capsys.readouterr().out
    assert "3 images have no label: images/15.png, images/90.png, images/91.png" in out
    names = {d.impath.rsplit("/", 1)[1] for d in [*data.train_x, *data.val, *data.test]}
    assert not names & {"90.png", "91.png"}


@pytest.mark.parametrize(
    "lines, head, message",
    [
        (["images/1.png,a", "images/2.png,a"], "path,letter", "'letter'.*only the label 'a'"),
        (["images/1.png,a,", "images/2.png,b,"], "path,letter,side", "'side' has no label"),
        (["images/1.png,a"], "picture,letter", "no column of paths.*picture,letter"),
        (["images/1.png"], "path", "no column of labels"),
        (["images/1.png,a,b"], "path,letter,letter", "two columns.*'letter'"),
        (["images/1.png,a", "images/1.png,b"], "path,letter", "manifest.csv:3.*already.*csv:2"),
        (["images/1.png,a", "./images/1.png,b"], "path,letter", "csv:3.*already.*csv:2.*'a'"),
        (["images/1.png;a"], "path;letter", "separated by ';'"),
        (["images/1.png,a", "images/2.png,b"], "path,letter", "'a'.*'letter'.*too few"),
        (["images/1.png,a,b"], "path,letter", "expected 2 fields"),
        (["images/1.png,nowhere,a"], "path,split,letter", "split 'nowhere'"),
        (["../1.png,a", "images/2.png,b"], "path,letter", "must be relative"),
        ([], "path,letter", "(no label|lists no images)"),
    ],
)
def test_bad_tables_are_refused(table, lines, head, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        load("TaskColumns", table(lines, head))


def test_an_image_with_several_labels_is_encoded_once(cli, tmp_path):
    make_mini("TaskColumns", tmp_path / "m")
    code, out, err = cli(
        *("DATASET.ROOT", tmp_path / "m", "DATASET.SUBSAMPLE_TASKS", "all"),
        *("DATASET.NUM_SHOTS", 1, "FEATURES.MODE", "full"),
        trainer="MTCoOp",
        dataset="TaskColumns",
    )
    assert (code, err) == (0, "") and "* total: 8" in out
    assert "Computing the features of 6 images" in out  # 8 labels of 6 test images
