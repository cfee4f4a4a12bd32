"""The number of threads is measured, once a step runs."""

import time

import pytest
import torch

from dassl.utils import threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    threads._threads_at_start.cache_clear()
    yield
    torch.set_num_threads(before)
    threads._threads_at_start.cache_clear()


@pytest.mark.parametrize(
    ("with_one", "with_two", "chosen"),
    [
        (0.001, 0.001, 1),
        (0.02, 0.001, 2),
        (0.001, 0.02, 1),
        (0.06, 0.06, 2),
        (0.001, 0.06, 1),  # a small step of two threads that a busy machine keeps waiting
    ],
)
def test_more_threads_only_where_they_pay(two_threads, with_one, with_two, chosen, capsys):
    def step():
        time.sleep(with_one if torch.get_num_threads() == 1 else with_two)

    threads.choose_threads(step)
    assert torch.get_num_threads() == chosen
    assert ("1 thread" in capsys.readouterr().out) == (chosen == 1)
    threads.choose_threads(step)  # another run in the same process measures again
    assert torch.get_num_threads() == chosen


def test_small_fits_use_one_thread_whatever_the_time(two_threads):
    for size, expected in ((threads.SMALL - 1, 1), (threads.SMALL, 2), (1000, 1)):
        threads.set_threads(size)
        assert torch.get_num_threads() == expected


def test_one_thread_is_not_measured(two_threads):
    torch.set_num_threads(1)
    threads.choose_threads(lambda: pytest.fail("nothing to choose"))
