"""Kinds of label: their losses and measures against plain loops, and what asks them."""

import math

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.data.class_sampling import sample_classes
from dassl.data.label_kinds import MultiLabel, Ordinal, SingleLabel, kind_of_json
from dassl.data.tasks import Task, TaskSpace
from dassl.evaluation import build_evaluator
from dassl.evaluation.predictions import Predictions
from dassl.utils import UserError
from tests.reference import label_kinds as reference

SETS = ((0, 2), (), (1,), (0, 1, 2))
SETTINGS = [
    dict(),
    dict(positive_weight=3.0, bias=-0.7),
    dict(loss_name="asymmetric"),
    dict(loss_name="asymmetric", positive_weight=0.5, bias=0.4),
]


def mixed(**options):
    """A space of a single-label, a multi-label and an ordinal task: columns 0-2, 3-5, 6-9."""
    return TaskSpace(
        (
            Task("colour", ("red", "green", "blue")),
            Task("shapes", ("loop", "line", "curve"), kind=MultiLabel(SETS, **options)),
            Task("size", ("tiny", "small", "big", "huge"), kind=Ordinal(1.5), metric="mean_acc"),
        )
    )


def batch(count=30, seed=0):
    """Logits (B, 10), labels and tasks of images of all three tasks."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 10, generator=generator, dtype=torch.float64) * 2
    task = torch.arange(count) % 3
    label = torch.randint(0, 3, (count,), generator=generator)
    return logits.requires_grad_(), label, task


def naive_loss(logits, label, task, options, mask, smoothing):
    """The mean over images of the loops of the reference."""
    total = 0.0
    for row, y, t in zip(logits, label.tolist(), task.tolist(), strict=True):
        columns = [c for c in ((0, 1, 2), (3, 4, 5), (6, 7, 8, 9))[t] if mask is None or mask[c]]
        place = {c: i for i, c in enumerate(columns)}
        scored = [row[c] for c in columns]
        own = dict(options)
        name = own.pop("loss_name", "binary")
        if t == 0:
            loss = reference.single(scored, place[y], smoothing)
        elif t == 2:
            loss = reference.ordinal(scored, place[6 + y], 1.5, smoothing)
        elif name == "binary":
            classes = {place[3 + c] for c in SETS[y]}
            loss = reference.binary(scored, classes, label_smoothing=smoothing, **own)
        else:
            loss = reference.asymmetric(scored, {place[3 + c] for c in SETS[y]}, **own)
        total = total + loss
    return total / len(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_losses_and_gradients_are_those_of_plain_loops(options, smoothing):
    if "loss_name" in options and smoothing:
        pytest.skip("the published asymmetric loss has no label smoothing")
    logits, label, task = batch()
    for mask in (None, torch.tensor([1, 1, 1, 1, 1, 1, 1, 1, 1, 0]).bool()):
        found = mixed(**options).cross_entropy(logits, label, task, mask, smoothing)
        expected = naive_loss(logits, label, task, options, mask, smoothing)
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        grads = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
        torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


def test_a_task_that_is_not_in_the_batch_changes_nothing():
    logits, label, task = batch()
    for t in range(3):
        mine = task == t
        own = logits[mine].detach().requires_grad_()
        space = mixed()
        mask = space.of_tasks(task[mine])
        found = space.cross_entropy(own, label[mine], task[mine], mask)
        expected = naive_loss(own, label[mine], task[mine], {}, None, 0.0)
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        assert torch.autograd.grad(found, own)[0].isfinite().all()


def test_a_label_may_be_larger_than_the_number_of_classes():
    space = TaskSpace((Task("shapes", ("loop", "line"), kind=MultiLabel(((), (0,), (1,)))),))
    zero = torch.zeros(1, dtype=torch.long)
    loss = space.cross_entropy(torch.zeros(1, 2), zero + 2, zero)
    assert loss.item() == pytest.approx(2 * math.log(2))


def test_ordinal_without_weight_is_the_plain_cross_entropy():
    logits, label, _ = batch()
    tasks = [Task("size", tuple("abcdefghij"), kind=kind) for kind in (Ordinal(0.0), SingleLabel())]
    ordinal, single = (
        TaskSpace((task,)).cross_entropy(logits, label, torch.zeros_like(label)) for task in tasks
    )
    assert ordinal.item() == pytest.approx(single.item(), rel=1e-12)


def test_class_sampling_keeps_all_classes_of_the_batch():
    space, (_, label, task) = mixed(), batch(6)
    generator = torch.Generator().manual_seed(0)
    mask = sample_classes(space, label, task, 0.0, generator).tolist()
    wanted = set()
    for y, t in zip(label.tolist(), task.tolist(), strict=True):
        wanted |= {(0, 3, 6)[t] + c for c in (SETS[y] if t == 1 else (y,))}
    assert {c for c, chosen in enumerate(mask) if chosen} == wanted


@pytest.fixture
def evaluated(capsys):
    """Tasks, as recorded, and the log, of an evaluation of a space in two batches."""

    def evaluate(space, logits, label, task):
        cfg = get_cfg_default()
        cfg.TEST.PER_TASK_RESULT = True
        evaluator = build_evaluator(cfg, space=space)
        for part in (slice(0, 11), slice(11, None)):
            evaluator.process(logits[part], label[part], task[part])
        capsys.readouterr()
        evaluator.evaluate()
        return evaluator.tasks, capsys.readouterr().out

    return evaluate


def test_measures_are_those_of_plain_loops(evaluated):
    logits, label, task = batch(90, seed=3)
    logits = logits.detach()
    space = mixed(bias=-0.5, threshold=0.4)
    (colour, shapes, size), log = evaluated(space, logits, label, task)
    assert colour["metric"] == "overall_acc" and "measures" not in colour
    rows = (logits[task == 1, 3:6].float().double() - 0.5).sigmoid().tolist()
    sets = [set(SETS[y]) for y in label[task == 1].tolist()]
    expected = reference.set_measures(rows, sets, 0.4)
    assert shapes["metric"] == "mAP" and shapes["total"] == 30
    assert (shapes["value"], shapes["measures"]["F1"]) == pytest.approx(expected[:2])
    assert (shapes["correct"], shapes["classes_without_positives"]) == expected[2:]
    predicted = logits[task == 2, 6:].argmax(1)
    errors = [
        abs(a - b) for a, b in zip(predicted.tolist(), label[task == 2].tolist(), strict=True)
    ]
    assert size["metric"] == "mean_acc"
    assert size["measures"] == {"MAE": pytest.approx(sum(errors) / len(errors))}
    assert f"MAE: {sum(errors) / len(errors):.3f}" in log and "(mAP)" in log


def test_classes_without_positive_test_images_are_left_out_and_counted(evaluated):
    task = Task("shapes", ("loop", "line", "curve"), kind=MultiLabel(SETS))
    logits, label, zeros = torch.randn(20, 3), torch.arange(20) % 2, torch.zeros(20).long()
    (found,), log = evaluated(TaskSpace((task,)), logits, label, zeros)
    assert found["classes_without_positives"] == 1 and "left out: 1" in log
    assert f"mean logit: {found['mean_logit']:.1f} + bias 0.0" in log
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluated(TaskSpace((task,)), logits, torch.ones(20).long(), zeros)


def test_predictions_of_images_are_kept_for_one_class_per_image_only():
    logits, label, task = batch(9)
    predictions = Predictions(mixed())
    predictions.add(logits.detach(), label, torch.arange(9), task)
    found = predictions.arrays()
    assert found["task"].tolist() == [0, 2] * 3 and found["classes"].shape == (6, 5)


def test_what_is_shown_of_an_image():
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, -2.0, -1.0]])
    classes, values = MultiLabel().predict(logits, top=1)
    assert classes == [[0, 2], []] and values[0] == pytest.approx([0.8808, 0.6225], abs=1e-4)
    assert MultiLabel(bias=-1.0).predict(logits, 5)[0] == [[0], []]
    at_threshold, label = torch.tensor([[0.0, -1.0]]), torch.tensor([0])
    assert MultiLabel(((0,),)).predict(at_threshold, 5)[0] == [[0]]
    assert MultiLabel(((0,),)).measures(at_threshold, label)["correct"] == 1
    assert Ordinal().predict(logits, top=2)[0] == [[0, 2], [2, 1]]


def test_half_of_the_classes():
    kind, labels = MultiLabel(SETS, bias=-2.0).restrict(range(1, 3))
    assert kind == MultiLabel(((1,), (0,), (0, 1)), bias=-2.0) and labels == {0: 0, 2: 1, 3: 2}
    assert Ordinal().restrict(range(2, 4)) == (Ordinal(), {2: 0, 3: 1})


def test_kinds_are_stored_without_the_images():
    for kind in (SingleLabel(), Ordinal(0.3), MultiLabel(SETS, "asymmetric", 2.0, -3.0, 0.7)):
        found = kind_of_json(kind.to_json())
        assert type(found) is type(kind) and found.to_json() == kind.to_json()


@pytest.mark.parametrize(
    "options, message", [(dict(loss_name="hinge"), "hinge.*binary"), (dict(threshold=1.0), "1.0")]
)
def test_impossible_values_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        MultiLabel(SETS, **options)
