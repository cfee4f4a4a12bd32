"""LP-CLIP: the fitted regression and the search of C."""

import random

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from dassl.utils import UserError
from tests.conftest import TASKS
from tests.reference import heads as naive
from tests.trainers._heads import drawn, judged, training
from trainers.linear_probe import choose_exponent, regression


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [0.01, 3.0])
def test_regression_is_at_the_minimum(close, classes, c):
    x = drawn(12)[:, :5].double()
    y = torch.arange(12) % classes
    model = regression(x.numpy(), y.numpy(), c, 1000)
    weight, bias = naive.probe(x, y.tolist(), classes, c)
    mine = x @ torch.from_numpy(model.coef_).T + torch.from_numpy(model.intercept_)
    theirs = x @ weight.T + bias
    if classes == 2:
        mine, theirs = mine[:, 0], theirs[:, 1]
    else:  # a constant added to all logits changes nothing
        mine, theirs = (z - z.mean(dim=1, keepdim=True) for z in (mine, theirs))
    close(mine, theirs, 1e-2)  # the solver stops where the gradient is below 1e-4


def test_more_than_the_limit_of_steps_is_no_error():
    x, y = drawn(12).numpy().astype(np.float64), np.arange(12) % 3
    assert regression(x, y, 1e6, 2).n_iter_.max() == 2


def test_regression_on_one_image_per_class_is_silent(recwarn):
    regression(drawn(30).numpy(), np.arange(30), 1.0, 1000)  # 1 shot of 30 classes
    assert not recwarn.list


@pytest.mark.parametrize("t", [0, 1])  # three classes, two classes
def test_probe_scores_with_the_fitted_regression(build, close, t):
    trainer = build("LinearProbe", "TRAINER.LP.C", 0.5, "DATASET.SUBSAMPLE_TASKS", f"task{t}")
    trainer.fit()
    x, y = training(trainer)
    x, y, head = x.double(), y.tolist(), trainer.model.prompter
    found = (head.weight.detach().double(), head.bias.detach().double())
    least = naive.probe_objective(*naive.probe(x, y, len(TASKS[t].classnames), 0.5), x, y, 0.5)
    assert naive.probe_objective(*found, x, y, 0.5).item() == pytest.approx(least.item(), rel=1e-3)
    expected = drawn(6).double() @ found[0].T + found[1]
    close(trainer.forward({"global": drawn(6)}).logits, expected)


def test_the_search_of_c():
    for seed in range(200):
        rng = random.Random(seed)
        values, tried = {}, []

        def quality(exponent, rng=rng, values=values, tried=tried):
            tried.append(exponent)
            return values.setdefault(float(exponent), rng.randrange(5))  # with many ties

        found = choose_exponent(quality)
        first = len(set(map(float, tried)))
        assert found == naive.choose_c(quality)
        assert len(set(map(float, tried))) == first == len(values)  # the same values were tried
        assert first <= 7 + 2 + 7  # the peak's two neighbours, then a middle per halving


def test_c_is_chosen_by_the_metric_of_the_task(build, capsys):
    trainer = build("LinearProbe", "DATASET.SUBSAMPLE_TASKS", "task1")  # mean_acc
    trainer.fit()
    val, label, _ = trainer.split_features("val")
    value = judged(trainer.forward(val).logits, label, 1)
    assert f": {value:.2f}% on 4 validation images" in capsys.readouterr().out


def test_upstream_metrics_are_swapped(run, build):
    content = run("LinearProbe", "TRAINER.LP.UPSTREAM_METRICS", "True", "TRAINER.LP.C", 1)
    own = ["mean_acc" if t.metric == "overall_acc" else "overall_acc" for t in TASKS]
    assert [task["metric"] for task in content["tasks"]] == own
    assert content["protocol"]["method"] == "LP-CLIP (upstream's metrics)"
    build("LinearProbe", "TEST.METRIC", "overall_acc")
    with pytest.raises(UserError, match=r"UPSTREAM_METRICS.*TEST.METRIC per_task"):
        build("LinearProbe", "TRAINER.LP.UPSTREAM_METRICS", "True", "TEST.METRIC", "overall_acc")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_solver_uses_as_many_threads_as_torch(monkeypatch, threads):
    used = []

    def fit(self, x, y):
        used.extend(pool["num_threads"] for pool in threadpool_info())

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        regression(np.ones((2, 3)), np.array([0, 1]), 1.0, 1)
    finally:
        torch.set_num_threads(before)
    assert set(used) == {threads}
