"""The weights of tasks in the loss: values against naive references, and what is refused."""

import math

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.data import Datum, Task, TaskSpace
from dassl.engine.task_weights import build_task_weights, check_task_weights
from dassl.utils import UserError
from tests.reference import task_weights as reference

SPACE = TaskSpace(tuple(Task(name, ("a", "b")) for name in ("size", "colour", "mood")))
IMAGES = (6, 3, 1)
ITEMS = [Datum(task=t) for t, count in enumerate(IMAGES) for _ in range(count)]
BATCHES = [  # loss and task of each image
    [(2.0, 0), (1.0, 0), (0.5, 1), (4.0, 2)],
    [(1.0, 0), (0.25, 1)],
    [(0.5, 0), (0.75, 1), (0.25, 1), (2.0, 2)],
]


def rule(name, **more):
    optim = get_cfg_default().OPTIM
    optim.TASK_WEIGHTS = name
    for key, value in more.items():
        optim[key] = value
    return optim


def losses_of(weights):
    found = []
    for batch in BATCHES:
        loss, task = (torch.tensor(values) for values in zip(*batch, strict=True))
        found.append(weights(loss, task).item())
    return found


def build(name, **more):
    return build_task_weights(rule(name, **more), SPACE, ITEMS)


def test_without_a_rule_the_loss_is_the_mean():
    weights = build("none")
    assert losses_of(weights) == [1.875, 0.625, 0.875]
    assert weights.current() == [] and not weights.state_dict() and not weights.parameter_groups(1)


def test_given():
    weights = build("given", TASK_WEIGHT_VALUES=(1, 0.5, 0))
    assert losses_of(weights) == pytest.approx(reference.given(BATCHES, [1, 0.5, 0]))
    assert losses_of(weights)[0] == pytest.approx((2 + 1 + 0.25 + 0) / 4)
    assert weights.current() == [1, 0.5, 0]


def test_by_size():
    weights = build("by_size")
    assert weights.current() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert losses_of(weights) == pytest.approx(reference.by_size(BATCHES, IMAGES))
    without_last = build_task_weights(rule("by_size"), SPACE, ITEMS[:-1])  # the only one of "mood"
    assert without_last.current() == [0.5, 1.0, 3.0]


def test_uncertainty():
    weights = build("uncertainty")
    assert losses_of(weights) == losses_of(build("none"))  # every weight starts at 1
    s = [0.5, -1.0, 2.0]
    weights.load_state_dict({"log_variance": torch.tensor(s)})
    assert losses_of(weights) == pytest.approx(reference.uncertainty(BATCHES, s))
    assert weights.current() == pytest.approx([math.exp(-value) for value in s])
    (group,) = weights.parameter_groups(0.1)
    assert group["lr"] == 0.1 and group["weight_decay"] == 0


def test_uncertainty_is_learned_to_twice_the_loss():
    """The minimum of exp(-s) l + s / 2 is at s = log(2 l)."""
    weights = build("uncertainty")
    optim = torch.optim.SGD(weights.parameter_groups(0.5), lr=1.0)
    task, loss = torch.arange(3), torch.tensor([2.0, 0.5, 0.1])
    for _ in range(300):
        optim.zero_grad()
        weights(loss, task).backward()
        optim.step()
    assert weights.log_variance.tolist() == pytest.approx((2 * loss).log().tolist(), abs=1e-3)


def test_running_mean():
    weights = build("running_mean")
    found = losses_of(weights)
    assert found == pytest.approx(reference.running_mean(BATCHES))
    assert found[0] == pytest.approx(1)  # every task by its own mean
    means = [0.9 * (0.9 * 1.5 + 0.1) + 0.05, 0.9 * (0.45 + 0.025) + 0.05, 3.8]
    assert weights.current() == pytest.approx([1 / mean for mean in means])


def test_running_mean_continues_from_its_state():
    one, two = build("running_mean"), build("running_mean")
    losses_of(one)
    two.load_state_dict(one.state_dict())
    assert losses_of(two) == losses_of(one)


def test_a_task_whose_loss_is_zero_is_divided_by_no_zero():
    weights = build("running_mean")
    loss = torch.zeros(2, requires_grad=True)
    total = weights(loss, torch.tensor([0, 1]))
    total.backward()
    assert total == 0 and loss.grad.isfinite().all()


def test_gradients_are_weighted_and_means_are_constants():
    weights = build("running_mean")
    loss = torch.tensor([2.0, 1.0, 4.0], requires_grad=True)
    weights(loss, torch.tensor([0, 0, 2])).backward()
    assert loss.grad.tolist() == pytest.approx([1 / 1.5 / 3, 1 / 1.5 / 3, 1 / 4 / 3])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("given", (), "TASK_WEIGHT_VALUES .* 3 tasks .*size, colour, mood.* got 0"),
        ("given", (1, 2), r"3 tasks .* got 2: \(1, 2\)"),
        ("given", (0, 0, 0), "TASK_WEIGHT_VALUES is 0 for every task"),
        ("by_size", (1, 2, 3), r"\(1, 2, 3\) .*given.*by_size"),
    ],
)
def test_values_that_do_not_suit_are_refused(name, values, message):
    with pytest.raises(UserError, match=message):
        check_task_weights(rule(name, TASK_WEIGHT_VALUES=values), SPACE)


@pytest.mark.parametrize(
    ("key", "value"),
    [("TASK_WEIGHT_VALUES", (1, -1, 1)), ("TASK_WEIGHT_LR", 0.0), ("TASK_WEIGHTS", "kendall")],
)
def test_ranges(key, value):
    cfg = get_cfg_default()
    cfg.OPTIM[key] = value
    with pytest.raises(UserError, match=f"OPTIM.{key} takes"):
        cfg.check()
