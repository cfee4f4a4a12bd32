"""Tasks, their layout, the loss over them and class sub-sampling."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.data import Task, TaskSpace
from dassl.data.class_sampling import sample_classes
from dassl.data.label_kinds import MultiLabel
from dassl.utils import UserError
from tests.reference import tasks as reference


def make_space(sizes):
    return TaskSpace(
        tuple(
            Task(f"task {t}", tuple(f"class {t}.{c}" for c in range(n)))
            for t, n in enumerate(sizes)
        )
    )


def make_batch(sizes, batch, seed):
    g = torch.Generator().manual_seed(seed)
    task = torch.randint(len(sizes), (batch,), generator=g)
    label = torch.tensor([int(torch.randint(sizes[t], (), generator=g)) for t in task])
    logits = 3 * torch.randn(batch, sum(sizes), generator=g, dtype=torch.float64)
    return logits, label, task, g


some_sizes = st.lists(st.integers(1, 6), min_size=1, max_size=4)
percent = st.integers(0, 100).map(lambda n: n / 100)


def test_space_lays_out_columns():
    space = make_space([2, 3, 1])
    assert space.sizes == [2, 3, 1]
    assert space.offsets.tolist() == [0, 2, 5, 6]
    assert space.owner.tolist() == [0, 0, 1, 1, 1, 2]
    assert space.num_classes == len(space.classnames) == 6
    assert space.classnames[space.columns(1)] == ["class 1.0", "class 1.1", "class 1.2"]
    assert TaskSpace(list(space.tasks)) == space
    assert [task.name for task in space.subset([2, 0]).tasks] == ["task 2", "task 0"]


@settings(max_examples=25, deadline=None)
@given(some_sizes, st.integers(1, 8), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 10**6))
def test_cross_entropy_is_the_naive_loop(sizes, batch, smoothing, seed):
    space = make_space(sizes)
    logits, label, task, g = make_batch(sizes, batch, seed)
    keeps = [None, sample_classes(space, label, task, 0.4, g)]
    for class_mask in keeps:
        grads, losses = [], []
        for loss_of in (
            lambda x, class_mask=class_mask: space.cross_entropy(
                x, label, task, class_mask, smoothing
            ),
            lambda x, class_mask=class_mask: reference.cross_entropy(
                x, label, task, sizes, class_mask, smoothing
            ),
        ):
            x = logits.clone().requires_grad_()
            loss = loss_of(x)
            loss.backward()
            losses.append(loss.detach())
            grads.append(x.grad)
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*grads)
        assert grads[0][:, ~class_mask if class_mask is not None else []].count_nonzero() == 0


def test_cross_entropy_of_half_precision_is_computed_in_fp32():
    space = make_space([3, 2])
    logits, label, task, _ = make_batch([3, 2], 5, 0)
    half = logits.half()
    loss = space.cross_entropy(half, label, task)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, space.cross_entropy(half.float(), label, task))


@settings(max_examples=50, deadline=None)
@given(some_sizes, st.integers(1, 8), percent, st.integers(0, 10**6))
def test_sample_classes_keeps_present_and_a_share_of_each_task(sizes, batch, rate, seed):
    space = make_space(sizes)
    _, label, task, g = make_batch(sizes, batch, seed)
    class_mask = sample_classes(space, label, task, rate, g)
    assert class_mask.dtype == torch.bool and class_mask.shape == (sum(sizes),)
    assert class_mask[label + space.offsets[task]].all()
    counts = [int(class_mask[space.columns(t)].sum()) for t in range(len(sizes))]
    assert counts == reference.kept_counts(label, task, sizes, rate)


def test_sample_classes_counts_exactly_where_floats_do_not():
    space = make_space([101])  # one present and 100 others: 0.07 * 100 is 7.000000000000001
    zero = torch.zeros(1, dtype=torch.long)
    assert sample_classes(space, zero, zero, 0.07, torch.Generator()).sum() == 1 + 7


def test_sample_classes_is_even_and_belongs_to_its_generator():
    space, zero = make_space([1, 6]), torch.zeros(1, dtype=torch.long)
    g = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    draws = torch.stack([sample_classes(space, zero, zero, 0.5, g) for _ in range(2000)])
    assert torch.equal(state, torch.get_rng_state())
    assert draws[:, 0].all() and (draws[:, 1:].sum(dim=1) == 3).all()
    torch.testing.assert_close(
        draws[:, 1:].float().mean(0), torch.full((6,), 0.5), atol=0.05, rtol=0
    )
    again = sample_classes(space, zero, zero, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(again, draws[0])


@pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan")])
def test_sample_classes_refuses_a_rate_outside_0_to_1(rate):
    zero = torch.zeros(1, dtype=torch.long)
    with pytest.raises(UserError, match="rate must lie between 0 and 1"):
        sample_classes(make_space([2]), zero, zero, rate, torch.Generator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classnames": ()}, "'pets' has no classes"),
        ({"classnames": ("cat", "dog", "cat")}, "two classes of the same name: 'cat'"),
        ({"templates": ("a photo.",)}, "'a photo.' of task 'pets' must hold {} once"),
        ({"templates": ("{} and {}",)}, "must hold {} once"),
        ({"templates": ("{} and {size}",)}, "no other brace"),
        ({"templates": ()}, "'pets' has no template"),
        ({"metric": "mean_accuracy"}, "did you mean mean_acc"),
    ],
)
def test_task_refuses_what_cannot_be_used(options, message):
    with pytest.raises(UserError, match=message):
        Task("pets", **{"classnames": ("cat", "dog"), **options})


def test_space_refuses_to_be_empty():
    with pytest.raises(UserError, match="there are no tasks"):
        TaskSpace(())


def test_columns_of_the_tasks_in_a_batch():
    space = TaskSpace((Task("a", ("x", "y")), Task("b", ("x",)), Task("c", ("u", "v", "w"))))
    task = torch.tensor([2, 0, 2])
    assert space.of_tasks(task).tolist() == [True, True, False, True, True, True]
    assert space.of_tasks(torch.tensor([0, 1, 2])) is None
    class_mask = torch.tensor([0, 1, 1, 0, 0, 1]).bool()
    assert space.of_tasks(task, class_mask).tolist() == [False, True, False, False, False, True]
    assert space.of_tasks(torch.tensor([0, 1, 2]), class_mask).equal(class_mask)


def test_tasks_are_keys_of_dictionaries():
    kind = MultiLabel(sets=((), (0,)))
    task = Task("pets", ["cat", "dog"], ["a {}."], kind=kind)
    names = {task: "pets", Task("cars", ("red",)): "cars"}
    kind.bias = -3.0  # set during a run
    assert names[task] == "pets"
