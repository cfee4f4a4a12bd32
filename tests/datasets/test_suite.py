"""A suite that is listed in a YAML."""

import pytest

import train
from dassl.config import get_cfg_default
from dassl.data import build_dataset
from dassl.utils import UserError
from datasets._core.mini import make_mini
from tests.datasets.folders import fill, load

pytestmark = pytest.mark.usefixtures("user_cache")


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


def test_train_takes_a_suite_of_a_new_name(tmp_path):
    make_mini("ImageFolder", tmp_path / "screws", per_class=4)
    members = [{}, {"TASK_NAME": "kind of screw"}]
    words = ["--trainer", "ZeroshotCLIP", "--backbone", "tiny/random", "--quiet"]
    words += ["--root", str(tmp_path / "screws"), "--output-dir", str(tmp_path / "run")]
    words += [
        "DATALOADER.NUM_WORKERS",
        "0",
        "--seed",
        "1",
        "DATASET.NAME",
        "Workshop",
        "DATASET.MEMBERS",
        str(members),
    ]
    content = train.main(train.parse_args(words))
    assert content["protocol"]["suite"] == "Workshop"
    assert [task["name"] for task in content["tasks"]] == ["kind of bolt", "kind of screw"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((), "takes its datasets from DATASET.MEMBERS"),
        (["OxfordPets"], r"MEMBERS\[0\] must hold keys"),
        ([{"NAEM": "x"}], r"no key of DATASET.MEMBERS\[0\] named 'NAEM'; did you mean NAME"),
        ([{"NAME": "OxfordPet"}], "did you mean OxfordPets"),
        ([{"NAME": "Suite"}], "cannot hold a Suite"),
        ([{"ROOT": 5, "NAME": "ImageFolder"}], "there is no folder .*/5"),
        ([{"ROOT": None, "METRIC": "f1"}], "METRIC .*'f1'"),
        ([{"METRIC": "f1", "ROOT": "."}], "METRIC .*'f1'"),
        ([{"TEMPLATE": "a photo", "ROOT": "."}], "must hold {} once"),
        ([{"TASK_NAME": " ", "ROOT": "."}], "TASK_NAMES must name each of the 1 tasks"),
    ],
)
def test_bad_suite_is_refused(bolts, members, message):
    with pytest.raises(UserError, match=message):
        load("Suite", bolts, MEMBERS=members)
