"""Split files: CoOp's, SoftCPT's, our own, and anything else that JSON can hold."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.config import get_cfg_default
from dassl.data import Datum
from dassl.utils import UserError
from dassl.utils.hashes import hash_json
from datasets._core.base import FewShotDataset
from datasets._core.splits import Split, read_split, to_json
from tests.datasets.folders import fill

ZHOU = {
    "train": [["b/1.jpg", 1, "bee"], ["a/1.jpg", 0, "ant"]],
    "val": [["a/2.jpg", 0, "ant"]],
    "test": [["c/3.jpg", 2, "cat"], ["a/3.jpg", 0, "ant"]],
}
DK = {
    "train": [["1.jpg", [0, 2], [0, 1]], ["2.jpg", [1], [0]]],
    "val": [["3.jpg", [1], [1]]],
    "test": [["4.jpg", [0], [0]]],
    "meta": {
        "taskid2cname": [["x", "y"], ["u", "v", "w"]],
        "taskid2tname": ["letters", "more letters"],
        "taskid2metric": ["mean_acc", "mean_acc"],
    },
}


class Zoo(FewShotDataset):
    dataset_dir = "zoo"
    task_name = "animal"
    renames = {"cat": "lynx"}


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = tmp_path / "zoo" / "images"
    for number in "12349":
        for file in (f"a/{number}.jpg", f"b/{number}.jpg", f"c/{number}.jpg", f"{number}.jpg"):
            (images / file).parent.mkdir(parents=True, exist_ok=True)
            (images / file).write_bytes(b"not looked at")
    for file in ("a.jpg", "b/c.jpg"):
        (images / file).write_bytes(b"not looked at")
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.SEED = str(tmp_path), 1
    return cfg


def write(tmp_path, kind, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "zoo" / f"split_{kind}_Zoo.json").write_text(text, encoding="utf-8")


def brief(items):
    return [(item.impath.rpartition("images/")[2], item.label, item.task) for item in items]


def test_zhou(cfg, tmp_path):
    write(tmp_path, "zhou", ZHOU)
    zoo = Zoo(cfg)
    assert zoo.classnames == ["ant", "bee", "lynx"] and zoo.split == "zhou"
    assert brief(zoo.train_x) == [("b/1.jpg", 1, 0), ("a/1.jpg", 0, 0)]
    assert brief(zoo.test) == [("c/3.jpg", 2, 0), ("a/3.jpg", 0, 0)]
    assert zoo.test[0].classname == "lynx"
    assert zoo.space.tasks[0].name == "animal"


@pytest.mark.parametrize("keyed", [False, True])
def test_dk(cfg, tmp_path, keyed):
    content = json.loads(json.dumps(DK))
    if keyed:
        meta = content["meta"]
        for key in ("taskid2cname", "taskid2tname"):
            meta[key] = {str(t): value for t, value in enumerate(meta[key])}
    write(tmp_path, "dk", content)
    zoo = Zoo(cfg)
    assert [task.name for task in zoo.space.tasks] == ["letters", "more letters"]
    assert zoo.classnames == ["x", "y", "u", "v", "w"] and zoo.split == "dk"
    assert brief(zoo.train_x) == [("1.jpg", 0, 0), ("1.jpg", 2, 1), ("2.jpg", 1, 0)]
    assert {task.metric for task in zoo.space.tasks} == {"overall_acc"}  # the class decides


def test_auto_takes_zhou_then_dk_then_own(cfg, tmp_path):
    fill(tmp_path / "zoo" / "images", {name: 5 for name in "abc"})
    assert Zoo(cfg).split == "own"
    write(tmp_path, "dk", DK)
    assert Zoo(cfg).split == "dk"
    write(tmp_path, "zhou", ZHOU)
    assert Zoo(cfg).split == "zhou"
    for kind in ("dk", "own"):
        cfg.DATASET.SPLIT = kind
        assert Zoo(cfg).split == kind


def test_split_files_can_have_other_names(cfg, tmp_path):
    class Oddly(Zoo):
        split_files = {"dk": "split_dk_kaggle_zoo.json"}

    (tmp_path / "zoo" / "split_dk_kaggle_zoo.json").write_text(json.dumps(DK))
    assert Oddly(cfg).split == "dk"


def changed(base, **parts):
    return {**base, **parts}


def item(base, entry):
    return {**base, "train": [entry, *base["train"]]}


def meta(**parts):
    return {**DK, "meta": {**DK["meta"], **parts}}


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("zhou", "{", "split_zhou_Zoo.json is not valid JSON"),
        ("zhou", "[" * 100_000, "split_zhou_Zoo.json is not valid JSON"),
        ("zhou", [], "it must be an object with the lists"),
        ("zhou", changed(ZHOU, val={}), "must hold a list 'val'"),
        ("zhou", item(ZHOU, ["a/9.jpg", "0", "ant"]), r"train\[0\] must be .path, label, class n"),
        ("zhou", item(ZHOU, ["a/9.jpg", True, "ant"]), r"train\[0\] must be"),
        ("zhou", item(ZHOU, ["a/9.jpg", 0]), r"train\[0\] must be"),
        ("zhou", item(ZHOU, ["a/9.jpg", 0, " "]), r"train\[0\] must be"),
        ("zhou", item(ZHOU, ["a/\0.jpg", 0, "ant"]), r"train\[0\] must be"),
        ("zhou", item(ZHOU, ["a/\ud800.jpg", 0, "ant"]), r"train\[0\] must be"),
        ("zhou", item(ZHOU, ["../a.jpg", 0, "ant"]), "must be relative to the image folder and"),
        ("zhou", item(ZHOU, ["a/../../a.jpg", 0, "ant"]), "stay inside it"),
        ("zhou", item(ZHOU, ["a\\..\\..\\a.jpg", 0, "ant"]), "stay inside it"),
        ("zhou", item(ZHOU, ["/etc/a.jpg", 0, "ant"]), "stay inside it"),
        ("zhou", item(ZHOU, ["C:/a.jpg", 0, "ant"]), "stay inside it"),
        ("zhou", item(ZHOU, ["a/9.jpg", 0, "bee"]), "label 0 is called both 'bee' and 'ant'"),
        ("zhou", item(ZHOU, ["a/9.jpg", 4, "elk"]), r"without gaps, but are \[0, 1, 2, 4\]"),
        ("zhou", item(ZHOU, ["a/9.jpg", 3, "ant"]), "two classes of the same name"),
        ("zhou", {"train": [], "val": [], "test": []}, "without gaps"),
        ("dk", item(DK, ["9.jpg", [0], [0, 1]]), r"train\[0\] must be .path, .labels., .task ids"),
        ("dk", item(DK, ["9.jpg", [], []]), r"train\[0\] must be"),
        ("dk", item(DK, ["9.jpg", 0, 0]), r"train\[0\] must be"),
        ("dk", item(DK, ["9.jpg", [-1], [0]]), r"train\[0\] must be"),
        ("dk", item(DK, ["9.jpg", [2], [0]]), "'9.jpg' has label 2 of task 0"),
        ("dk", item(DK, ["9.jpg", [0], [2]]), "'9.jpg' has label 0 of task 2"),
        ("dk", changed(DK, meta=None), "must hold an object 'meta'"),
        ("dk", meta(taskid2cname={"0": ["x"], "2": ["y"]}), "must hold one entry per task"),
        ("dk", meta(taskid2cname=[["x", 1]]), r"taskid2cname\[0\] must be a list of names"),
        ("dk", meta(taskid2cname=[["x", "y"], []]), "names no classes"),
        ("dk", meta(taskid2tname=["letters"]), "taskid2tname must name every task"),
    ],
)
def test_unusable_split_is_refused(cfg, tmp_path, kind, content, message):
    write(tmp_path, kind, content)
    with pytest.raises(UserError, match=message):
        Zoo(cfg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classnames": None}, "classnames must be a list"),
        ({"classnames": [["x"], "y"]}, r"classnames\[1\] must be a list of names"),
        ({"tasknames": ["a", "b", "c"]}, "tasknames must name every task or none"),
        ({"train": [["a.jpg", 0]]}, r"train\[0\] must be .path, label, task"),
        ({"train": [["a.jpg", 7, 0]]}, "label 7 of task 0"),
    ],
)
def test_own_split_with_a_fitting_hash_is_still_checked(tmp_path, change, message):
    content = {**to_json(Split([("x", "y")])), **change}
    content["hash"] = hash_json({k: v for k, v in content.items() if k not in ("format", "hash")})
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_split(path, "own")


def test_huge_file_is_not_read(tmp_path):
    path = tmp_path / "split.json"
    with path.open("wb") as file:
        file.truncate(2**31)  # takes no room on the disk
    with pytest.raises(UserError, match="has 2,147,483,648 bytes, more than"):
        read_split(path, "zhou")


def test_split_of_missing_images_is_refused(cfg, tmp_path):
    write(tmp_path, "zhou", {**ZHOU, "test": [[f"a/{i}.jpg", 0, "ant"] for i in range(20, 26)]})
    with pytest.raises(UserError, match=r"names images .*: a/20.jpg, a/21.jpg, a/22.jpg and 3"):
        Zoo(cfg)


def test_deep_nesting_is_refused(tmp_path):
    path = tmp_path / "split.json"
    for depth in range(100, 1000, 50):
        nested = "[" * depth + "]" * depth
        path.write_text(f'{{"train": [{nested}], "val": [], "test": [], "meta": {{}}}}')
        for kind in ("own", "zhou", "dk"):
            with pytest.raises(UserError, match=r"split.json"):
                read_split(path, kind)


words = st.one_of(st.sampled_from(["a.jpg", "b/c.jpg", "..", "/x", "", "ant"]), st.text(max_size=4))
leaves = st.one_of(st.none(), st.booleans(), st.integers(-1, 3), st.floats(), words)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
stop = st.sampled_from([False, False, True])
OWN = to_json(Split([("x", "y"), ("z",)], [Datum("1.jpg", 1)], [], [Datum("2.jpg", 0, task=1)]))
VALID = {"zhou": ZHOU, "dk": DK, "own": OWN}


@st.composite
def damaged(draw, valid):
    """A valid split of which up to three places hold something else."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(0, 3))):
        node = content
        while True:
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
            if not isinstance(node[key], (dict, list)) or not node[key] or draw(stop):
                node[key] = draw(leaves | anything)
                break
            node = node[key]
    return content


@pytest.mark.parametrize("kind", ["zhou", "dk", "own"])
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_json_gives_a_dataset_or_a_user_error(cfg, tmp_path, kind, data):
    content = data.draw(damaged(VALID[kind]) | anything)
    if kind == "own" and isinstance(content, dict):
        body = {k: v for k, v in content.items() if k not in ("format", "hash")}
        content = {**content, "hash": hash_json(body)}
    write(tmp_path, kind, content)
    cfg.DATASET.SPLIT = kind
    try:
        zoo = Zoo(cfg)
    except UserError:
        return
    assert zoo.num_classes >= 1
    for d in [*zoo.train_x, *zoo.val, *zoo.test]:
        assert d.label < zoo.space.sizes[d.task]
        assert d.impath.startswith(f"{tmp_path}/zoo/images/") and "/../" not in d.impath
