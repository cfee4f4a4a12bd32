"""Functions in turns: what they share, and what each has to itself."""

import random
import sys

import numpy as np
import pytest
import torch

from dassl.utils import lockstep
from dassl.utils.lockstep import Lockstep, Request, hand_in


class Sum(Request):
    """Adds a number to those of the others."""

    def __init__(self, value, kind="sum", rank=()):
        self.value, self.kind, self.rank = value, kind, rank

    def serve(self, requests):
        if any(request.value is None for request in requests):
            raise ValueError("no number")
        for request in requests:
            request.served = [other.value for other in requests]


def ask(value, **how):
    request = Sum(value, **how)
    hand_in(request)
    return request.served


def work(functions):
    """Results or errors of functions by name."""
    found = {}
    with Lockstep() as group:
        for name, function in functions.items():
            group.start(name, function)
        while group.strands:
            found |= {s.name: s.error or s.result for s in group.round()}
    return found


def test_requests_of_one_kind_are_served_together():
    found = work(
        {
            "a": lambda: ask(1) + ask(2),
            "b": lambda: ask(10) + ask(20),
            "other": lambda: ask(5, kind="other"),
            "none": lambda: 7,
        }
    )
    assert found == {"a": [1, 10, 2, 20], "b": [1, 10, 2, 20], "other": [5], "none": 7}


def test_requests_of_a_high_rank_come_first():
    def first():
        return ask(1, kind="early", rank=(1,)) + ask(2, kind="late")

    assert work({"a": lambda: ask(3, kind="late"), "b": first}) == {"a": [3, 2], "b": [1, 3, 2]}


def test_a_request_that_fails_fails_alone():
    found = work({"a": lambda: ask(1), "bad": lambda: ask(None), "b": lambda: ask(2)})
    assert found["a"] == [1] and found["b"] == [2]
    assert isinstance(found["bad"], ValueError)


def draw():
    numbers = [random.random(), np.random.rand(), torch.rand(1).item()]
    if lockstep.current():
        ask(0)
    return [*numbers, random.random(), np.random.rand(), torch.rand(1).item()]


def seeded(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return draw()


def test_random_numbers_are_those_of_each_alone():
    alone = {seed: seeded(seed) for seed in (1, 2, 3)}
    random.seed(4)
    np.random.seed(4)
    torch.manual_seed(4)
    assert work({seed: lambda seed=seed: seeded(seed) for seed in alone}) == alone
    found = draw()
    assert found == seeded(4)  # the caller's generators are where they were


def test_stdout_is_each_ones_own(tmp_path):
    def log(name):
        with open(tmp_path / name, "w") as sys.stdout:
            print("before", name)
            ask(0)
            print("after", name)

    before = sys.stdout
    work({name: lambda name=name: log(name) for name in "ab"})
    assert sys.stdout is before
    assert {p.name: p.read_text().split() for p in tmp_path.iterdir()} == {
        name: ["before", name, "after", name] for name in "ab"
    }


def test_all_stop_with_the_block():
    stopped = []

    def wait(name):
        try:
            while True:
                ask(0)
        except KeyboardInterrupt:
            stopped.append(name)
            raise

    group = Lockstep()
    with pytest.raises(RuntimeError, match="enough"), group:
        for name in "ab":
            group.start(name, lambda name=name: wait(name))
        group.round()
        group.start("c", lambda: stopped.append("never begun"))
        raise RuntimeError("enough")
    assert stopped == ["a", "b"] and not group.strands
