"""A stopped training continues as if it had not stopped."""

import copy

import pytest
import torch
from torch import nn

from dassl.engine import EachTask
from dassl.engine.resume import load_resume, random_state, save_resume, set_random_state
from dassl.utils import UserError
from tests.dassl.engine._trainers import Each, Plain, same, weights


class Stopped(RuntimeError):
    """Stands for a killed process."""


def stop_at(trainer, epoch):
    """Let a trainer fail at the start of an epoch."""
    whole = trainer.before_epoch

    def before_epoch():
        if trainer.epoch == epoch:
            raise Stopped
        whole()

    trainer.before_epoch = before_epoch


@pytest.mark.parametrize("final", ["last_step", "best_val"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_resumed_training_is_the_uninterrupted_one(make, tmp_path, name, final):
    opts = ("OPTIM.MAX_EPOCH", 5, "OPTIM.NAME", name, "TEST.FINAL_MODEL", final)
    whole = make(Plain, *opts, output=tmp_path / "whole")
    whole.train()
    first = make(Plain, *opts)
    stop_at(first, 3)
    with pytest.raises(Stopped):
        first.train()
    torch.manual_seed(99)  # the other process has gone, and its generators with it
    second = make(Plain, *opts)
    second.train()
    assert second.start_epoch == 3
    assert same(weights(second), weights(whole))  # dropout included
    assert second.results() == whole.results()
    assert second.best_result == whole.best_result
    third = make(Plain, *opts)
    third.train()
    assert third.start_epoch == 5
    assert third.results() == whole.results()


def test_states_are_written_at_most_every_so_many_seconds(make, tmp_path):
    opts = ("OPTIM.MAX_EPOCH", 4, "TRAIN.RESUME_SECONDS", 1000)
    whole = make(Plain, *opts, output=tmp_path / "whole")
    whole.train()
    assert torch.load(tmp_path / "whole" / "resume.pt", weights_only=True)["epoch"] == 4
    first = make(Plain, *opts)
    stop_at(first, 3)
    with pytest.raises(Stopped):
        first.train()
    assert not (tmp_path / "run" / "resume.pt").exists()
    again = make(Plain, *opts)
    again.train()
    assert again.start_epoch == 0
    assert same(weights(again), weights(whole))


def damage_values(path):
    """Leave a state that is found to be damaged only when it is restored."""
    state = torch.load(path, weights_only=True)
    torch.save({**state, "optims": [None]}, path)


@pytest.mark.parametrize("damage", ["broken", "values", "gone"])
def test_a_broken_state_falls_back_to_the_one_before(make, tmp_path, damage, capsys):
    opts = ("OPTIM.MAX_EPOCH", 4)
    whole = make(Plain, *opts)
    whole.train()
    newest = tmp_path / "run" / "resume.pt"
    if damage == "broken":
        newest.write_bytes(newest.read_bytes()[:200])
    elif damage == "values":
        damage_values(newest)
    else:
        newest.unlink()
    again = make(Plain, *opts)
    again.train()
    assert again.start_epoch == 3
    assert same(weights(again), weights(whole))


@pytest.mark.parametrize("change", [damage_values, lambda path: path.write_bytes(b"x")])
def test_a_damaged_state_to_start_from_is_refused(make, tmp_path, change):
    make(Plain, "OPTIM.MAX_EPOCH", 1).train()
    change(tmp_path / "run" / "resume.pt")
    with pytest.raises(UserError, match=r"resume\.pt.*no other state in .*run: delete it"):
        make(Plain, "RESUME", tmp_path / "run", output=tmp_path / "new").train()


def test_going_on_from_another_folder(make, tmp_path):
    whole = make(Plain, "OPTIM.MAX_EPOCH", 4, "OPTIM.LR_SCHEDULER", "constant")
    stop_at(whole, 2)
    with pytest.raises(Stopped):
        whole.train()
    opts = ("RESUME", tmp_path / "run", "OPTIM.MAX_EPOCH", 6, "OPTIM.LR_SCHEDULER", "constant")
    longer = make(Plain, *opts, output=tmp_path / "longer")
    longer.train()
    assert longer.start_epoch == 2
    assert (tmp_path / "longer" / "model" / "model.pth.tar-6").exists()


@pytest.mark.parametrize("stop", [(0, 1), (1, 1), (2, 0)])
def test_each_task_resumes_where_it_stopped(make, tmp_path, stop):
    opts = ("OPTIM.MAX_EPOCH", 3)
    whole = make(Each, *opts, task="all", output=tmp_path / "whole")
    assert isinstance(whole, EachTask)
    whole.train()
    first = make(Each, *opts, task="all")
    task, epoch = stop
    stop_at(first.task_trainers[task], epoch)
    with pytest.raises(Stopped):
        first.train()
    second = make(Each, *opts, task="all")
    second.train()
    starts = [trainer.start_epoch for trainer in second.task_trainers]
    assert starts == [3] * task + [epoch] + [0] * (2 - task)
    assert second.results() == whole.results()
    for mine, theirs in zip(second.task_trainers, whole.task_trainers, strict=True):
        assert same(weights(mine), weights(theirs))


def test_each_task_goes_on_from_another_folder(make, tmp_path):
    make(Each, task="all").train()
    longer = make(
        Each, "RESUME", tmp_path / "run", "OPTIM.MAX_EPOCH", 3, task="all", output=tmp_path / "b"
    )
    longer.train()
    assert [trainer.start_epoch for trainer in longer.task_trainers] == [2, 2, 2]


def test_state_of_other_models_is_refused(make, tmp_path):
    trainer = make()
    save_resume(trainer, tmp_path / "run", 1)
    other = make()
    other.register_model("more", nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"holds the models \['model'\], but this trainer has"):
        load_resume(other, tmp_path / "run")
    trainer.checkpoint_metadata = lambda: {"set of names": ["ash", "elm"]}
    save_resume(trainer, tmp_path / "named", 1)
    trainer.checkpoint_metadata = lambda: {"set of names": ["ash", "fir"]}
    with pytest.raises(UserError, match=r"another set of names: .*elm.*fir"):
        load_resume(trainer, tmp_path / "named")


def test_all_generators_are_put_back():
    import random

    import numpy as np

    state = copy.deepcopy(random_state())

    def draw():
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()

    first = draw()
    draw()
    set_random_state(state)
    assert draw() == first


def test_extra_state_travels(make, tmp_path):
    class Counting(Plain):
        count = 0

        def after_epoch(self):
            self.count += 1
            super().after_epoch()

        def extra_state(self):
            return {"count": self.count}

        def load_extra_state(self, state):
            self.count = state["count"]

    first = make(Counting, "OPTIM.MAX_EPOCH", 4)
    stop_at(first, 2)
    with pytest.raises(Stopped):
        first.train()
    second = make(Counting, "OPTIM.MAX_EPOCH", 4)
    second.train()
    assert second.count == 4
