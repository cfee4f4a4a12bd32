"""Time by part, and meters that keep tensors."""

import pytest
import torch

from dassl.engine import TrainerBase
from dassl.utils import AverageMeter, Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A stopwatch, and a function that lets time pass."""
    now = [100.0]
    monkeypatch.setattr("dassl.utils.lockstep.time.perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return Stopwatch(("a", "b")), wait


def test_time_counts_for_the_innermost_part(clock):
    watch, wait = clock
    wait(50)
    with watch.part("a"):
        wait(1)
        with watch.part("b"):
            wait(2)
        wait(4)
        with watch.part("a"):
            wait(8)
    wait(50)
    assert watch.seconds() == {"a": 13, "b": 2}
    with watch.part("b"):
        wait(16)
    assert watch.seconds() == {"a": 13, "b": 18}


def test_a_switch_lasts_until_the_part_around_it_ends(clock):
    watch, wait = clock
    with watch.part("a"):
        assert watch.switch("b") == "a"
        wait(3)
    wait(5)
    assert watch.switch("a") is None
    wait(7)
    assert watch.switch(None) == "a"
    wait(9)
    assert watch.seconds() == {"a": 7, "b": 3}


def test_an_error_ends_a_part(clock):
    watch, wait = clock
    with pytest.raises(RuntimeError), watch.part("a"):
        wait(1)
        raise RuntimeError
    wait(2)
    assert watch.seconds() == {"a": 1, "b": 0}


def test_a_part_has_to_be_known(clock):
    watch, wait = clock
    with pytest.raises(KeyError), watch.part("c"):
        wait(1)


def test_tensors_and_numbers_average_alike():
    values = [0.5, 2.0, -1.0, 4.0]
    lazy, eager, mixed = (AverageMeter() for _ in range(3))
    for i, value in enumerate(values):
        lazy.update(torch.tensor(value, requires_grad=True), n=i + 1)
        eager.update(value, n=i + 1)
        mixed.update(torch.tensor([value]) if i % 2 else value, n=i + 1)
    for meter in (lazy, mixed):
        assert (meter.val, meter.avg, meter.sum, meter.count) == (
            eager.val,
            eager.avg,
            eager.sum,
            eager.count,
        )
    lazy.reset()
    assert (lazy.val, lazy.count) == (0.0, 0)


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


def test_losses_on_a_gpu_are_looked_at_later():
    trainer = TrainerBase()
    for value in (1.0, float("nan"), 2.0):
        trainer.detect_anomaly(torch.tensor(value).as_subclass(Elsewhere))
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        trainer.check_losses()
    trainer.check_losses()  # they have been looked at
    trainer.detect_anomaly(torch.tensor(1.0).as_subclass(Elsewhere))
    trainer.check_losses()
