"""The searches for learning rates look at no test image."""

import statistics

import pytest

import train
from benchmarks import demo_rates, pair_rates
from benchmarks._rates import outcome_of, print_row
from dassl.data.datasets import build_dataset

DIGITS = ("--trainer", "ZeroshotCLIP", "--backbone", "tiny/random", "DATASET.NAME")


def configuration(*words):
    return train.setup_cfg(train.parse_args([*DIGITS, *words]))


def paths(items):
    return {item.impath for item in items}


def test_pairs_are_training_pairs_held_out():
    cfg = configuration("DigitCaptions", "SEED", "3")
    usual, held = build_dataset(cfg), pair_rates.HeldOut(cfg)
    assert len(held.train_x) == 500 and not held.val
    assert paths(held.train_x) | paths(held.test) <= paths(usual.train_x)
    assert not paths(held.train_x) & paths(held.test)
    captions = [item.caption for item in held.test]
    assert len(set(captions)) == len(captions) > 50
    other = pair_rates.HeldOut(configuration("DigitCaptions", "SEED", "4"))
    assert paths(other.test) != paths(held.test)


def test_tasks_are_scored_on_the_rest_of_the_pool():
    cfg = configuration("Digits7", "SEED", "3", "DATASET.NUM_SHOTS", "2")
    usual, pool = build_dataset(cfg), demo_rates.pool_dataset(cfg)
    assert pool.train_x == usual.train_x
    seen = {(item.task, item.impath) for item in [*pool.train_x, *pool.val]}
    scored = {(item.task, item.impath) for item in pool.test}
    assert not seen & scored
    assert not paths(pool.test) & paths(usual.test)
    assert len(seen | scored) == 7 * 900


def test_a_run_on_other_data():
    words = [*DIGITS, "DigitCaptions"]
    outcome = outcome_of(words, 3, pair_rates.HeldOut)
    values = [task["value"] for task in outcome["tasks"]]
    assert outcome["suite"]["value"] == pytest.approx(statistics.mean(values))
    test = pair_rates.HeldOut(configuration("DigitCaptions", "SEED", "3")).test
    assert {task["total"] for task in outcome["tasks"]} == {len(test)}


def test_rows(capsys):
    print_row(["a", 1], [], head=True)
    print_row(["b", 0.01], [12.345, 100.0])
    lines = ["| a | 1 |", "|---|---|", "| b | 0.01 | 12.35 | 100.00 |"]
    assert capsys.readouterr().out.splitlines() == lines
