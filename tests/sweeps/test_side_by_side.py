"""Runs that one process does in turns: each has its own folder, log, record, failure and resume."""

import json
import os
import signal

import pytest

import train
from dassl.engine import TrainerX
from dassl.utils import UserError
from sweeps.events import Events
from sweeps.planned_run import PlannedRun
from sweeps.run import run_one
from sweeps.serial import run_serial
from sweeps.side_by_side import AUTO, MOST, SideBySide, parse_together
from tests.conftest import toy_args

METHODS = {"a": ("MTCoOp", 3), "b": ("MTCoOp", 2), "c": ("CoOp", 4), "d": ("ZeroshotCLIP", 2)}


def do_train(argv):
    name, *words = argv
    trainer, epochs = METHODS[name]
    return train.main(toy_args(trainer, "OPTIM.MAX_EPOCH", epochs, *words))


def planned(folder, name, *more):
    words = (name, "OUTPUT_DIR", str(folder / name), "SEED", "abcd".index(name), *more)
    return PlannedRun(name, "toy", 1, 1, folder / name, words)


def do(runs, together):
    outcomes = {}
    events = Events(lambda run: None, lambda run, outcome: outcomes.update({run.method: outcome}))
    run_serial(runs, lambda run: run_one(do_train, run), events, together)
    return outcomes


@pytest.fixture(scope="module")
def alone(toy, tmp_path_factory):
    """The folder of all runs, each done by itself."""
    folder = tmp_path_factory.mktemp("alone")
    do([planned(folder, name) for name in METHODS], together=1)
    return folder


def record(folder):
    return json.loads((folder / "results.json").read_text())


def check_same(folder, alone, names=METHODS):
    for name in names:
        mine, theirs = (record(place / name) for place in (folder, alone))
        assert mine["status"] == "complete"
        for ours, expected in zip(mine["tasks"], theirs["tasks"], strict=True):
            one_image = 100 / expected["total"]
            assert ours["value"] == pytest.approx(expected["value"], abs=1.01 * one_image)


@pytest.mark.parametrize("together", [AUTO, pytest.param(3, marks=pytest.mark.slow)])
def test_each_run_is_the_run_alone(toy, tmp_path, alone, together):
    outcomes = do([planned(tmp_path, name) for name in METHODS], together)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    check_same(tmp_path, alone)
    for name, (_, epochs) in METHODS.items():
        mine, theirs = ((p / name / "log.txt").read_text().splitlines() for p in (tmp_path, alone))
        starts = [[line.partition("\t")[0][:12] for line in log] for log in (mine, theirs)]
        assert [s for s in starts[0] if s.startswith("epoch")] == [
            s for s in starts[1] if s.startswith("epoch")
        ]
        assert mine.count("Finished training") == theirs.count("Finished training")
        if name != "d":
            assert any(f"[{epochs}/{epochs}]" in line for line in mine)


def test_one_that_fails_takes_no_other_down(toy, tmp_path, alone, monkeypatch):
    real = TrainerX.after_epoch

    def after(self):
        real(self)
        if self.output_dir.name == "b":
            raise RuntimeError("out of luck")

    monkeypatch.setattr(TrainerX, "after_epoch", after)
    outcomes = do([planned(tmp_path, name) for name in METHODS], AUTO)
    assert outcomes["b"].error == "RuntimeError: out of luck"
    assert record(tmp_path / "b")["status"] == "failed"
    check_same(tmp_path, alone, names="acd")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_stopped_and_started_again(toy, tmp_path, alone, monkeypatch, number):
    real = TrainerX.after_epoch

    def after(self):
        real(self)
        if self.output_dir.name == "b" and self.epoch == 0:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch, pytest.raises(BaseException) as stopped:
        patch.setattr(TrainerX, "after_epoch", after)
        do([planned(tmp_path, name) for name in "abc"], AUTO)
    assert stopped.type.__name__ in ("KeyboardInterrupt", "Interrupted")
    for name in "abc":
        assert record(tmp_path / name)["status"] == "interrupted", name
    do([planned(tmp_path, name) for name in METHODS], AUTO)
    check_same(tmp_path, alone)
    assert "Resuming after epoch 1 of 2" in (tmp_path / "b" / "log.txt").read_text()


def test_room(tmp_path):
    """A run may start beside others once their memory is known and leaves room for another."""
    with SideBySide(run_one, AUTO) as place:
        assert place.has_room
        place.start(planned(tmp_path, "a"))
        (strand,) = place._lockstep.strands
        assert not place.has_room
        for share, room in ((0.2, True), (0.3, False), (0.0, True)):
            strand.share = share
            assert place.has_room == room
        for _ in range(MOST - 1):
            assert place.has_room
            place.start(planned(tmp_path, "a"))
            place._lockstep.strands[-1].share = 0.0
        assert not place.has_room


def test_numbers_of_runs():
    assert (parse_together("auto"), parse_together("3"), parse_together(2)) == (AUTO, 3, 2)
    for wrong in ("0", "many", -1):
        with pytest.raises(UserError, match=f"together.*auto.*{wrong}"):
            parse_together(wrong)
