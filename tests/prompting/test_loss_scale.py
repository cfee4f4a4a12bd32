"""Steps that mixed precision skips are counted, reported, recorded and resumed."""

import pytest
import torch

from prompting.loss_scale import LossScaler
from results.provenance import measure_run
from tests.trainers._methods import options

METHOD = "MTCoOpHard"


@pytest.fixture
def scaler():
    """The scaler of a GPU's mixed precision, on the CPU."""
    return LossScaler("cpu", enabled=True)


@pytest.fixture
def step(scaler):
    """A step of one number, whose scaled gradient is given."""
    weight = torch.zeros(1, requires_grad=True)
    optim = torch.optim.SGD([weight], lr=1.0)

    def step(gradient):
        weight.grad = torch.tensor([gradient]) * scaler.get_scale()
        scaler.scale(torch.ones(1))  # makes the scale
        scaler.step(optim)
        scaler.update()
        return weight.item()

    scaler.scale(torch.ones(1))
    return step


def test_an_overflow_skips_the_step_and_is_counted(scaler, step, capsys):
    assert step(float("inf")) == 0.0
    assert scaler.skipped == 1 and scaler.get_scale() == 2.0**15
    line = capsys.readouterr().out
    assert "65536" in line and "32768" in line and "PREC amp" in line
    assert step(1.0) == -1.0
    assert scaler.skipped == 1 and not capsys.readouterr().out


def test_scale_and_count_survive_a_stop(scaler, step):
    step(float("inf"))
    other = LossScaler("cpu", enabled=True)
    other.load_state_dict(scaler.state_dict())
    assert (other.get_scale(), other.skipped) == (2.0**15, 1)
    other.load_state_dict({})  # of a run that was begun before this was stored
    assert other.skipped == 1


def test_fp32_stores_and_records_nothing(build):
    trainer = build(METHOD, *options())
    assert trainer.extra_state()["loss_scale"] == {}
    assert "skipped_steps" not in measure_run(trainer)


def test_a_run_in_amp_resumes_its_scale_and_records_the_skipped_steps(build, scaler, step):
    step(float("inf"))
    first, second = (build(METHOD, *options()) for _ in range(2))
    first.scaler, second.scaler = scaler, LossScaler("cpu", enabled=True)
    second.load_extra_state(first.extra_state())
    assert second.scaler.get_scale() == 2.0**15
    assert measure_run(second)["skipped_steps"] == 1
