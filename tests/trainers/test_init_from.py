"""Training that starts from finished runs on other tasks."""

import json

import pytest
import torch

import softcpt
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from dassl.utils.checkpoint import load_checkpoint
from results.source_runs import check_sources

SOURCE = ("DATASET.SUBSAMPLE_TASKS", "base")
TARGET = ("DATASET.SUBSAMPLE_TASKS", "new")
SHORT = ("OPTIM.MAX_EPOCH", "1", "TEST.NO_TEST", "True")


def learned(folder):
    path = folder / "prompt_learner" / "model.pth.tar-1"
    return load_checkpoint(path)["state_dict"]


@pytest.fixture
def source(run, tmp_path):
    """``source(name, trainer, KEY, VALUE, ...)``: the folder of a run on the first two tasks."""

    def go(name, trainer, *opts, **how):
        run(trainer, *SOURCE, *SHORT, *opts, output=tmp_path / name, **how)
        return tmp_path / name

    return go


@pytest.fixture
def start(build, tmp_path):
    """``start(trainer, folders, KEY, VALUE, ...)``: a trainer that starts from runs."""

    def go(trainer, folders, *opts):
        return build(trainer, *TARGET, *opts, flags=("--init-from", *map(str, folders)))

    return go


def test_the_mean_of_several_seeds_is_carried_over(source, start):
    folders = [source(f"s{i}", "MTCoOp", flags=("--seed", str(i))) for i in (1, 2)]
    one, two = map(learned, folders)
    trainer = start("MTCoOp", folders)
    state = trainer.models()[0].state_dict()
    assert state.keys() == one.keys() and not torch.equal(one["meta.proj"], two["meta.proj"])
    for key, value in state.items():
        torch.testing.assert_close(value, (one[key] + two[key]) / 2)
    assert trainer.carried == {"carried": ["tasks.ctx", "meta.proj"], "new": []}


@pytest.mark.parametrize(
    "trainer, options, bound",
    [
        ("MTCoOp", ("TRAINER.MTCOOP.TASK_CSC", "True"), ["tasks.ctx"]),
        ("MTCoOp", ("TRAINER.MTCOOP.TASK_VECTORS", "True"), ["vectors"]),
    ],
)
def test_tensors_of_single_tasks_are_not_carried_over(
    source, start, build, trainer, options, bound
):
    folder = source("source", trainer, *options)
    own = build(trainer, *TARGET, *options).models()[0].state_dict()
    moved = start(trainer, [folder], *options)
    assert moved.carried == {"carried": ["meta.proj"], "new": bound}
    state = moved.models()[0].state_dict()
    torch.testing.assert_close(state["meta.proj"], learned(folder)["meta.proj"])
    torch.testing.assert_close(state[bound[0]], own[bound[0]])


def test_tensors_of_the_same_classes_are_carried_over(source, build):
    folder = source("source", "MTCoOpHard", "TRAINER.MTCOOPH.CSC", "True")
    flags = ("--init-from", str(folder))
    same = build("MTCoOpHard", *SOURCE, "TRAINER.MTCOOPH.CSC", "True", flags=flags)
    torch.testing.assert_close(
        same.models()[0].state_dict()["prompts.ctx"], learned(folder)["prompts.ctx"]
    )


def test_each_task_starts_from_a_run_on_one(source, build):
    folder = source("source", "CoOp", "DATASET.SUBSAMPLE_TASKS", "task2")
    suite = build("CoOp", *SOURCE, flags=("--init-from", str(folder)))
    for part in suite.task_trainers:
        state = part.models()[0].state_dict()
        torch.testing.assert_close(state, learned(folder))


def test_the_record_names_the_sources(run, source, tmp_path, capsys):
    """By what they are: another folder is the same start, other weights are another run."""
    first, second = (source(f"s{i}", "MTCoOp", flags=("--seed", str(i))) for i in (1, 2))
    how = dict(output=tmp_path / "moved")
    content = run("MTCoOp", *TARGET, flags=("--init-from", str(first)), **how)
    section = content["init_from"]
    assert section["carried"] == ["tasks.ctx", "meta.proj"] and section["new"] == []
    assert (section["runs"][0]["suite"], section["runs"][0]["tasks"]) == ("Toy", "base")
    assert content["protocol"]["init_from"].startswith("Toy base ")
    assert str(first) not in json.dumps(content)

    elsewhere = first.rename(tmp_path / "elsewhere")
    again = run("MTCoOp", *TARGET, flags=("--init-from", str(elsewhere)), **how)
    assert again == content  # complete: nothing to do
    assert softcpt.load_run(tmp_path / "moved").record == content  # which needs no source
    with pytest.raises(UserError, match="other checkpoints"):
        run("MTCoOp", *TARGET, flags=("--init-from", str(second)), **how)
    other = run(
        "MTCoOp", *TARGET, flags=("--init-from", str(second)), output=tmp_path / "of seed 2"
    )
    assert other["protocol"]["init_from"] == content["protocol"]["init_from"]  # rows share seeds
    assert other["hashes"]["config"] != content["hashes"]["config"]


def test_key_value_pairs_may_follow_the_runs(source, build):
    folder = source("source", "MTCoOp")
    trainer = build("MTCoOp", flags=("--init-from", str(folder), "DATASET.SUBSAMPLE_TASKS", "new"))
    assert len(trainer.dm.space.tasks) == 1
    assert list(trainer.cfg.MODEL.INIT_FROM) == [str(folder)]


def refused(run, *words, trainer="MTCoOp", options=()):
    with pytest.raises(UserError) as error:
        run(trainer, *TARGET, *options, flags=("--init-from", *map(str, words)))
    return str(error.value)


def test_what_is_refused_before_training(run, source, tmp_path):
    joint = source("joint", "MTCoOp")
    assert str(tmp_path / "none") in refused(run, tmp_path / "none")
    assert "MTCoOpHard" in refused(run, joint, trainer="MTCoOpHard")
    assert "weights of its own" in refused(run, source("each", "CoOp"), trainer="CoOp")
    several = source("nats", "MTCoOp", "TRAINER.MTCOOP.TASK_CSC", "True")
    assert "MTCOOP.TASK_CSC True (here False)" in refused(run, joint, several)
    vit = source("vit", "MTCoOp", "MODEL.BACKBONE.NAME", "tiny-vit/random")
    assert "backbone" in refused(run, vit) and "backbone" in refused(run, joint, vit)
    per_class = ("TRAINER.MTCOOPH.CSC", "True")
    bound = source("bound", "MTCoOpHard", *per_class)
    assert "nothing" in refused(run, bound, trainer="MTCoOpHard", options=per_class)
    probe = source("probe", "ProtoNet", "DATASET.SUBSAMPLE_TASKS", "task0")
    assert "SGD" in refused(run, probe, trainer="ProtoNet")
    record = json.loads((joint / "results.json").read_text())
    record["status"] = "interrupted"
    (joint / "results.json").write_text(json.dumps(record))
    assert "not complete (interrupted)" in refused(run, joint)


@pytest.mark.parametrize("trainer", ["CoOp", "MTCoOp", "MTCoOpHard", "DePT"])
def test_a_run_with_other_options_is_refused_by_their_names(run, source, trainer):
    """Also where the tensors fit: a context in front of the class names is no start for one behind.

    DePT's options are those of two nodes.
    """
    node, key, there, here = {
        "CoOp": ("COOP", "CLASS_TOKEN_POSITION", "end", "middle"),
        "MTCoOp": ("MTCOOP", "DEPTH", 2, 1),
        "MTCoOpHard": ("MTCOOPH", "CTX_INIT", "a photo of a", ""),
        "DePT": ("COOP", "N_CTX", 16, 4),
    }[trainer]
    one = ("DATASET.SUBSAMPLE_TASKS", "task0")
    key = f"TRAINER.{node}.{key}"
    folder = source("source", trainer, *one, key, there)
    message = refused(run, folder, trainer=trainer, options=(key, here))
    assert f"{key} {there!r} (here {here!r})" in message and f"Set {key}" in message


def test_options_of_the_training_and_unknown_ones_may_differ(source, start):
    folder = source("source", "MTCoOp", "TRAINER.MTCOOP.ANCHOR_TEXT", "1.0")
    file = folder / "results.json"
    record = json.loads(file.read_text())
    del record["protocol"]["options"]["DEPTH"]  # as in a run of an earlier version
    file.write_text(json.dumps(record))
    check_sources(start("MTCoOp", [folder], "TRAINER.MTCOOP.PREC", "amp").cfg)


def test_options_of_the_training_of_the_method_under_a_head_may_differ(run, source):
    method = ("TRAINER.DEPT.METHOD", "KgCoOp")
    one = ("DATASET.SUBSAMPLE_TASKS", "task0")
    folder = source("source", "DePT", *one, *method, "TRAINER.KGCOOP.W", "2.0")
    flags = ("--init-from", str(folder))
    run("DePT", *TARGET, *SHORT, *method, flags=flags)
    message = refused(run, folder, trainer="DePT", options=(*method, "TRAINER.DEPT.WEIGHT", "0.5"))
    assert "KGCOOP" not in message and "TRAINER.DEPT.WEIGHT 0.7 (here 0.5)" in message


def test_free_options_are_options():
    for name in TRAINER_REGISTRY.registered_names():
        trainer = TRAINER_REGISTRY.get(name)
        assert set(getattr(trainer, "free_options", ())) <= set(trainer.DEFAULTS), name


def test_an_evaluation_starts_from_nothing(run, source):
    with pytest.raises(UserError, match="--model-dir"):
        run("MTCoOp", *TARGET, flags=("--eval-only", "--init-from", str(source("s", "MTCoOp"))))
