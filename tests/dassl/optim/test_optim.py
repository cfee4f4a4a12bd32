import math

import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer, lr_at
from dassl.utils import UserError, load_checkpoint, save_checkpoint
from tests.reference.schedules import curve


def optim_cfg(**keys):
    """OPTIM with these values, which nothing has checked."""
    cfg = get_cfg_default().OPTIM
    for key, value in keys.items():
        setattr(cfg, key, value)
    return cfg


COOP = dict(LR=0.002, MAX_EPOCH=50, WARMUP_EPOCH=1, WARMUP_TYPE="constant")


def trained_rates(cfg, epochs, steps_per_epoch=1):
    """The rate that each epoch trains with, by the real optimizer and scheduler."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = build_optimizer([weight], cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        weight.sum().backward()
        optimizer.step()
        for _ in range(steps_per_epoch):
            scheduler.step()
    return rates


def test_coop_curve():
    rates = trained_rates(optim_cfg(**COOP), 50)
    assert rates[0] == pytest.approx(1e-5)
    for epoch in range(2, 51):
        expected = 0.002 * (1 + math.cos(math.pi * (epoch - 2) / 50)) / 2
        assert rates[epoch - 1] == pytest.approx(expected, rel=1e-9)
    assert rates[-1] == pytest.approx(7.89e-6, rel=1e-3)


def test_curve_stepped_three_times_per_epoch():
    rates = trained_rates(optim_cfg(**COOP), 50, steps_per_epoch=3)
    assert rates[17] == pytest.approx(0, abs=1e-12)
    assert rates[33] == pytest.approx(1.99e-3, rel=5e-3)
    assert rates[49] == pytest.approx(3.1e-5, rel=2e-2)


def test_curve_stepped_four_times_per_epoch():
    rates = trained_rates(optim_cfg(**COOP), 50, steps_per_epoch=4)
    assert rates[49] == pytest.approx(1.95e-3, rel=5e-3)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_fused_steps_are_the_same(name):
    start = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    found = []
    for fused in (False, True):
        weight = nn.Parameter(start.clone())
        optimizer = build_optimizer([weight], optim_cfg(NAME=name, LR=0.1), fused=fused)
        assert bool(optimizer.param_groups[0]["fused"]) == fused
        for _ in range(10):
            optimizer.zero_grad()
            weight.sin().sum().backward()
            optimizer.step()
        found.append(weight.detach())
    assert (found[1] - found[0]).norm() <= 1e-6 * (found[0] - start).norm()


@pytest.mark.parametrize("recount", [True, False])
@pytest.mark.parametrize("warmup", [-1, 1, 3])
@pytest.mark.parametrize(
    ("name", "stepsize"),
    [("cosine", ()), ("multi_step", (4, 9)), ("single_step", (5,)), ("constant", ())],
)
def test_schedules_against_torch(name, stepsize, warmup, recount):
    cfg = optim_cfg(
        LR=0.1,
        MAX_EPOCH=20,
        LR_SCHEDULER=name,
        STEPSIZE=stepsize,
        GAMMA=0.3,
        WARMUP_EPOCH=warmup,
        WARMUP_TYPE="linear",
        WARMUP_RECOUNT=recount,
    )
    n = max(warmup, 0)
    ramp = [1e-5] + [0.1 * s / max(n, 1) for s in range(1, n)]
    options = {"stepsize": stepsize, "gamma": 0.3}
    expected = curve(0.1, 30, name, 20, n, ramp, recount, **options)
    assert trained_rates(cfg, 30) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert [lr_at(s, cfg) for s in range(30)] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_squared_cosine_of_an_authors_log():
    """Rates of epochs 2, 3, 10, 91 and 100 in a log by the author of KgCoOp."""
    cfg = optim_cfg(
        LR=0.002,
        MAX_EPOCH=100,
        LR_SCHEDULER="cosine_squared",
        WARMUP_EPOCH=1,
        WARMUP_TYPE="constant",
        WARMUP_RECOUNT=False,
    )
    rates = [lr_at(epoch - 1, cfg) for epoch in (1, 2, 3, 10, 91, 100)]
    logged = [1e-5, 1.999013e-3, 1.996055e-3, 1.921376e-3, 1.197732e-6, 1.217413e-10]
    assert rates == pytest.approx(logged, rel=1e-6)


def test_single_step_of_minus_one_never_drops_within_the_training():
    cfg = optim_cfg(LR=0.1, MAX_EPOCH=5, LR_SCHEDULER="single_step", STEPSIZE=(-1,))
    assert [lr_at(s, cfg) for s in range(5)] == [0.1] * 5


def test_groups_with_their_own_rate_follow_the_curve():
    cfg = optim_cfg(LR=0.002, MAX_EPOCH=10)
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = build_optimizer([{"params": a}, {"params": [b], "lr": 0.02}], cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    optimizer.step()
    scheduler.step()
    slow, fast = (group["lr"] for group in optimizer.param_groups)
    assert slow == pytest.approx(lr_at(1, cfg))
    assert fast == pytest.approx(10 * slow)


def test_scheduler_state_survives_a_checkpoint(tmp_path):
    cfg = optim_cfg(**COOP)
    optimizer = build_optimizer([nn.Parameter(torch.ones(1))], cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    state = {"state_dict": {}, "epoch": 7, "scheduler": scheduler.state_dict()}
    state["optimizer"] = optimizer.state_dict()
    loaded = load_checkpoint(save_checkpoint(state, tmp_path))
    again = build_optimizer([nn.Parameter(torch.ones(1))], cfg)
    follow = build_lr_scheduler(again, cfg)
    again.load_state_dict(loaded["optimizer"])
    follow.load_state_dict(loaded["scheduler"])
    again.step()
    follow.step()
    assert again.param_groups[0]["lr"] == pytest.approx(lr_at(8, cfg))


def test_sgd_options():
    cfg = optim_cfg(NAME="sgd", LR=0.5, WEIGHT_DECAY=0.01, MOMENTUM=0.8, SGD_NESTEROV=True)
    optimizer = build_optimizer(nn.Linear(2, 2), cfg)
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.5, 0.01, 0.8)
    assert group["nesterov"] and group["dampening"] == 0
    plain = optim_cfg(NAME="sgd", MOMENTUM=0.0, SGD_DAMPNING=0.3)
    group = build_optimizer(nn.Linear(2, 2), plain).param_groups[0]
    assert not group["nesterov"] and (group["momentum"], group["dampening"]) == (0, 0.3)


@pytest.mark.parametrize(("name", "cls"), [("adam", "Adam"), ("adamw", "AdamW")])
def test_adam_options(name, cls):
    rest = dict(ADAM_EPS=1e-4, WEIGHT_DECAY=0.02, SGD_NESTEROV=True, MOMENTUM=0.0)  # SGD's own keys
    cfg = optim_cfg(NAME=name, ADAM_BETA1=0.7, ADAM_BETA2=0.8, **rest)
    optimizer = build_optimizer(nn.Linear(2, 2), cfg)
    assert type(optimizer).__name__ == cls
    assert optimizer.param_groups[0]["betas"] == (0.7, 0.8)
    assert optimizer.param_groups[0]["weight_decay"] == 0.02
    assert optimizer.param_groups[0]["eps"] == 1e-4


def test_only_what_requires_gradients_is_optimized():
    model = nn.Linear(2, 3)
    model.bias.requires_grad_(False)
    groups = build_optimizer(model, optim_cfg()).param_groups
    assert [p is model.weight for group in groups for p in group["params"]] == [True]
    groups = build_optimizer(None, optim_cfg(), param_groups=[model.bias, model.weight])
    assert len(groups.param_groups[0]["params"]) == 1


def test_nothing_to_train():
    with pytest.raises(UserError, match="there is nothing to train"):
        build_optimizer([torch.ones(1), {"params": []}], optim_cfg())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"NAME": "sdg"}, "OPTIM.NAME takes one of .*; got 'sdg'; did you mean sgd"),
        ({"LR": 0.0}, r"OPTIM\.LR takes .* above 0 .*; got 0\.0"),
        ({"MOMENTUM": -0.9}, r"OPTIM\.MOMENTUM takes .*; got -0\.9"),
        ({"SGD_NESTEROV": True, "MOMENTUM": 0.0}, "SGD_NESTEROV needs OPTIM.MOMENTUM above 0"),
        ({"SGD_NESTEROV": True, "SGD_DAMPNING": 0.1}, r"OPTIM\.SGD_DAMPNING 0; got .* 0\.1"),
    ],
)
def test_optimizer_refuses(keys, message):
    with pytest.raises(UserError, match=message):
        build_optimizer(nn.Linear(1, 1), optim_cfg(**keys))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"LR_SCHEDULER": "cosin"}, "OPTIM.LR_SCHEDULER takes .*; got 'cosin'; did you mean"),
        ({"WARMUP_EPOCH": 1, "WARMUP_TYPE": "lin"}, "OPTIM.WARMUP_TYPE .*'lin'"),
        ({"MAX_EPOCH": 0}, "OPTIM.MAX_EPOCH of at least 1; got 0"),
        ({"LR_SCHEDULER": "multi_step"}, r"multi_step needs OPTIM.STEPSIZE .* got \(-1,\)"),
        ({"LR_SCHEDULER": "multi_step", "STEPSIZE": ()}, r"multi_step needs .* got \(\)"),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (1, 2)}, "single_step needs one number"),
    ],
)
def test_schedule_refuses(keys, message):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(UserError, match=message):
        build_lr_scheduler(optimizer, optim_cfg(**keys))


def test_a_warmup_as_long_as_the_training_is_announced(capsys):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    build_lr_scheduler(optimizer, optim_cfg(WARMUP_EPOCH=2, MAX_EPOCH=3))
    assert capsys.readouterr().out == ""
    build_lr_scheduler(optimizer, optim_cfg(WARMUP_EPOCH=3, MAX_EPOCH=3))
    out = capsys.readouterr().out
    assert "OPTIM.WARMUP_EPOCH 3" in out and "OPTIM.MAX_EPOCH 3" in out
