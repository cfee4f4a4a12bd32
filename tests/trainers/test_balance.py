"""Runs whose tasks are balanced by a sampler and by weights in the loss."""

import pytest
import torch

import train
from dassl.engine import TrainerX
from dassl.utils import UserError, distributed, load_checkpoint
from results.aggregate import aggregate
from results.read import find_runs
from sweeps.events import Events
from sweeps.planned_run import PlannedRun
from sweeps.run import run_one
from sweeps.serial import run_serial
from tests._processes import in_processes
from tests.conftest import toy_args

TURNS = ("DATALOADER.TRAIN_X.SAMPLER", "RoundRobinTaskSampler", "OPTIM.MAX_EPOCH", 3)
EQUAL = ("DATALOADER.TRAIN_X.SAMPLER", "EqualTaskSampler", "DATALOADER.TRAIN_X.EPOCH", "all")
RULES = {
    "uncertainty": ("OPTIM.TASK_WEIGHTS", "uncertainty", *TURNS),
    "running_mean": ("OPTIM.TASK_WEIGHTS", "running_mean", *TURNS),
}
SLOW = pytest.mark.slow
SMALL = ("TRAINER.MTCOOPH.N_CTX", 2)


def state(folder):
    """The state at the end of a training."""
    return load_checkpoint(str(folder / "resume.pt"))


def context(folder):
    return state(folder)["models"]["prompt_learner"]["prompts.ctx"]


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The folder of a run and its record for each rule, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        rule: (
            folder / rule,
            train.main(toy_args("MTCoOpHard", *SMALL, *options, output=folder / rule)),
        )
        for rule, options in RULES.items()
    }


@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path, monkeypatch, rule):
    args = toy_args("MTCoOpHard", *SMALL, *RULES[rule], output=tmp_path / "run")
    after_epoch = TrainerX.after_epoch

    def stop(self):
        after_epoch(self)
        if self.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainerX, "after_epoch", stop)
        train.main(args)
    record = train.main(args)
    folder, expected = whole[rule]
    assert record["run"]["resumed"] is True
    assert torch.equal(context(tmp_path / "run"), context(folder))
    assert record["tasks"] == expected["tasks"] and record["balance"] == expected["balance"]


def test_the_record_names_rules_and_last_weights(whole):
    _, record = whole["uncertainty"]
    balance = record["balance"]
    assert balance["sampler"] == "RoundRobinTaskSampler" and balance["epoch"] == "images"
    assert balance["task_weights"] == "uncertainty"
    assert len(balance["last_weights"]) == 3 and balance["last_weights"] != [1, 1, 1]
    assert record["trainable"] == {"parameters": 2 * 64}  # what is tested


@pytest.mark.parametrize("rule", ["uncertainty", pytest.param("running_mean", marks=SLOW)])
def test_two_processes_learn_what_one_does(whole, tmp_path, monkeypatch, rule):
    monkeypatch.setattr("prompting.sharding.MIN_PROMPTS", 1)
    args = toy_args("MTCoOpHard", *SMALL, *RULES[rule], output=tmp_path / "many")
    assert in_processes(lambda: train.main(args)) == [0, 0]
    assert distributed.world_size() == 1
    folder, record = whole[rule]
    torch.testing.assert_close(context(tmp_path / "many"), context(folder), rtol=1e-5, atol=1e-6)
    weights = train.main(args)["balance"]["last_weights"]
    assert weights == pytest.approx(record["balance"]["last_weights"], rel=1e-4)


@pytest.mark.slow
def test_runs_in_turns_have_weights_of_their_own(whole, tmp_path):
    runs = [
        PlannedRun(rule, "toy", 1, 1, tmp_path / rule, (*SMALL, *options))
        for rule, options in RULES.items()
    ]

    def do(run):
        return run_one(
            lambda words: train.main(toy_args("MTCoOpHard", *words, output=run.folder)), run
        )

    run_serial(runs, do, Events(lambda run: None, lambda run, outcome: None), len(runs))
    for rule, (folder, _) in whole.items():
        torch.testing.assert_close(
            context(tmp_path / rule), context(folder), rtol=1e-4, atol=1e-5, msg=rule
        )


def test_runs_of_unlike_rules_are_not_averaged(whole, run, tmp_path):
    for seed in (1, 2):
        for name, options in (("plain", ()), ("equal", EQUAL)):
            output = tmp_path / name / str(seed)
            run("MTCoOpHard", *SMALL, "OPTIM.MAX_EPOCH", 1, "SEED", seed, *options, output=output)
    rows = {row.method: len(row.runs) for row in aggregate(find_runs(tmp_path))}
    assert rows == {"CoOp-MT": 2, "CoOp-MT (balance EqualTaskSampler, epoch all)": 2}


@pytest.mark.parametrize("options", [EQUAL, ("OPTIM.TASK_WEIGHTS", "by_size")])
def test_methods_that_train_tasks_separately_refuse(build, options):
    with pytest.raises(UserError, match=f"{options[1]} .*trained jointly, but CoOp trains each"):
        build("CoOp", *options)


def test_a_wrong_list_is_refused_before_the_first_batch(cli):
    words = ("DATASET.SUBSAMPLE_TASKS", "all", "OPTIM.TASK_WEIGHTS", "given")
    for more in ((), ("--dry-run",)):
        code, _, err = cli(
            *more, *words, "OPTIM.TASK_WEIGHT_VALUES", "(1, 2)", trainer="MTCoOpHard"
        )
        assert code == 2 and "TASK_WEIGHT_VALUES" in err and "3 tasks" in err and "(1, 2)" in err


def test_tasks_are_not_balanced_twice(cli):
    for more in ((), ("--dry-run",)):
        code, _, err = cli(*more, *EQUAL, "OPTIM.TASK_WEIGHTS", "by_size", trainer="MTCoOpHard")
        assert code == 2 and "by_size" in err and "EqualTaskSampler" in err and "leave out" in err


def test_a_run_of_another_rule_cannot_be_continued(whole, build, tmp_path):
    trainer = build("MTCoOpHard", *SMALL, "RESUME", whole["uncertainty"][0])
    with pytest.raises(UserError, match=r"OPTIM\.TASK_WEIGHTS"):
        trainer.train()


def test_a_trainer_with_a_loss_of_its_own_refuses_weights(build, register_trainer):
    class Own(TrainerX):
        """A joint trainer as written for Dassl."""

        suite = "joint"

    register_trainer(Own)
    with pytest.raises(UserError, match=r"OPTIM\.TASK_WEIGHTS by_size has no effect on Own"):
        build("Own", "OPTIM.TASK_WEIGHTS", "by_size")
