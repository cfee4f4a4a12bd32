import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from dassl.config import get_cfg_default
from dassl.data.label_kinds import MultiLabel
from dassl.data.tasks import Task, TaskSpace
from dassl.evaluation import build_evaluator, format_report, summarize
from dassl.metrics import compute_accuracy, task_metric
from dassl.utils import UserError
from tests.reference.metrics import per_task_metrics, topk_accuracy

SIZES, METRICS = [3, 5, 2], ["overall_acc", "mean_acc", "mean_acc"]


def make_space(groups=("", "", ""), metrics=METRICS, sizes=SIZES):
    tasks = [
        Task(f"task {t}", tuple(f"c{t}{c}" for c in range(n)), metric=metrics[t], group=groups[t])
        for t, n in enumerate(sizes)
    ]
    return TaskSpace(tuple(tasks))


def make_cfg(**keys):
    cfg = get_cfg_default()
    cfg.merge_from_dict({"TEST": keys})
    return cfg


def random_batch(n=200, seed=0, tasks=(0, 1, 2), leave_out=()):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, sum(SIZES), generator=g)
    task = torch.tensor(tasks)[torch.randint(len(tasks), (n,), generator=g)]
    label = (torch.rand(n, generator=g) * torch.tensor(SIZES)[task]).long()
    keep = torch.tensor(
        [(int(t), int(c)) not in leave_out for t, c in zip(task, label, strict=True)]
    )
    return logits[keep], label[keep], task[keep]


def run(evaluator, logits, label, task=None, batch=64):
    evaluator.reset()
    for i in range(0, len(label), batch):
        cut = slice(i, i + batch)
        evaluator.process(logits[cut], label[cut], None if task is None else task[cut])
    return evaluator.evaluate()


@pytest.mark.parametrize("leave_out", [(), ((1, 2), (1, 4))])
def test_each_task_by_its_metric(leave_out):
    logits, label, task = random_batch(leave_out=leave_out)
    evaluator = build_evaluator(make_cfg(), space=make_space())
    result = run(evaluator, logits, label, task)
    expected = per_task_metrics(logits.tolist(), label.tolist(), task.tolist(), SIZES, METRICS)
    assert [t["value"] for t in evaluator.tasks] == pytest.approx(expected)
    assert result["overall_metric"] == pytest.approx(sum(expected) / 3)
    assert evaluator.suite == {
        "metric": "mean over tasks",
        "value": result["overall_metric"],
        "groups": {},
    }
    assert [t["total"] for t in evaluator.tasks] == task.bincount().tolist()
    columns = [evaluator.space.columns(t) for t in range(3)]
    right = [logits[task == t][:, columns[t]].argmax(1) == label[task == t] for t in range(3)]
    assert [t["correct"] for t in evaluator.tasks] == [int(hits.sum()) for hits in right]


def test_plain_accuracy_for_every_task():
    logits, label, task = random_batch()
    evaluator = build_evaluator(make_cfg(METRIC="overall_acc"), space=make_space())
    run(evaluator, logits, label, task)
    metrics = ["overall_acc"] * 3
    expected = per_task_metrics(logits.tolist(), label.tolist(), task.tolist(), SIZES, metrics)
    assert [t["value"] for t in evaluator.tasks] == pytest.approx(expected)
    assert [t["metric"] for t in evaluator.tasks] == metrics


def test_log_lines(capsys):
    logits, label, task = random_batch()
    cfg = make_cfg(PER_TASK_RESULT=True)
    evaluator = build_evaluator(cfg, space=make_space())
    result = run(evaluator, logits, label, task)
    lines = capsys.readouterr().out.splitlines()
    mean = result["overall_metric"]
    assert lines[:3] == ["=> result", "* total: 200", f"* overall_metric: {mean:.2f}%"]
    first = evaluator.tasks[0]
    assert lines[4] == f"* task: 0 (task 0)\ttotal: {first['total']}\tmetric: {first['value']:.2f}%"
    assert lines[-1] == f"* average: {mean:.2f}%"


def test_groups_get_a_line_each_and_no_mean_over_them(capsys):
    logits, label, task = random_batch()
    evaluator = build_evaluator(make_cfg(), space=make_space(groups=("a", "b", "b")))
    result = run(evaluator, logits, label, task)
    values = [t["value"] for t in evaluator.tasks]
    assert result == {
        "overall_metric": pytest.approx(sum(values) / 3),
        "a": pytest.approx(values[0]),
        "b": pytest.approx(sum(values[1:]) / 2),
    }
    assert evaluator.suite["value"] is None
    out = capsys.readouterr().out
    assert f"* overall_metric (a): {values[0]:.2f}%" in out
    assert f"* overall_metric (b): {result['b']:.2f}%" in out
    assert "* overall_metric:" not in out and "average" not in out


def test_one_named_group_keeps_its_mean():
    suite = summarize([{"group": "plants", "value": v} for v in (10.0, None, 30.0)])
    assert suite == {"metric": "mean over tasks", "value": 20.0, "groups": {"plants": 20.0}}


def test_tasks_without_a_group_beside_a_group_are_named():
    suite = summarize([{"group": "", "value": 1.0}, {"group": "plants", "value": 3.0}])
    assert suite["value"] is None
    assert suite["groups"] == {"ungrouped": 1.0, "plants": 3.0}


def test_a_task_without_images_is_left_out_and_named(capsys):
    logits, label, task = random_batch(tasks=(0, 2))
    evaluator = build_evaluator(make_cfg(PER_TASK_RESULT=True), space=make_space())
    result = run(evaluator, logits, label, task)
    values = [t["value"] for t in evaluator.tasks]
    assert values[1] is None and evaluator.tasks[1]["total"] == 0
    assert result["overall_metric"] == pytest.approx((values[0] + values[2]) / 2)
    out = capsys.readouterr().out
    assert "* without test images, left out of the mean: task 1" in out
    assert "* task: 1 (task 1)\ttotal: 0\tmetric: n/a" in out


def test_report_of_tasks_trained_one_by_one():
    task = {"id": 3, "name": "x", "group": "", "metric": "mean_acc", "correct": 9, "total": 1200}
    tasks = [{**task, "value": 0.75}]
    lines = format_report(tasks, summarize(tasks), per_task=False)
    assert lines == ["=> result", "* total: 1,200", "* overall_metric: 0.75%"]


def test_masks_of_half_precision_and_far_logits():
    space = make_space()
    logits = torch.full((1, 10), 60000.0, dtype=torch.float16)
    logits[0, 3:8] = torch.tensor([-60000.0, -5, -4, -60000, -6]).half()
    evaluator = build_evaluator(make_cfg(), space=space)
    run(evaluator, logits, torch.tensor([2]), torch.tensor([1]))
    assert evaluator.tasks[1]["value"] == 100


def test_evaluates_again_after_reset():
    logits, label, task = random_batch()
    evaluator = build_evaluator(make_cfg(), space=make_space())
    assert run(evaluator, logits, label, task) == run(evaluator, logits, label, task)


def test_per_class_lines_of_a_suite(capsys):
    logits, label, task = random_batch(leave_out=((2, 1),))
    evaluator = build_evaluator(make_cfg(PER_CLASS_RESULT=True), space=make_space())
    run(evaluator, logits, label, task)
    out = capsys.readouterr().out
    assert "=> per-class result of task 2 (task 2)" in out
    assert "* class: 1 (c21)\ttotal: 0\tcorrect: 0\tacc: n/a" in out


def test_per_class_lines_of_images_with_several_classes(capsys):
    kind = MultiLabel(sets=((0,), (0, 1)))
    space = TaskSpace((Task("shown", ("sun", "moon", "star"), kind=kind),))
    evaluator = build_evaluator(make_cfg(PER_CLASS_RESULT=True), space=space)
    logits = torch.tensor([[3.0, 1.0, 0.0], [2.0, 4.0, 0.0], [1.0, 2.0, 0.0]])
    run(evaluator, logits, torch.tensor([0, 1, 0]))
    out = capsys.readouterr().out
    assert "* class: 0 (sun)\ttotal: 3\tAP: 100.00%" in out
    assert "* class: 1 (moon)\ttotal: 1\tAP: 100.00%" in out
    assert "* class: 2 (star)\ttotal: 0\tAP: n/a" in out


def test_task_may_be_left_out_for_one_task():
    space = make_space(groups=[""], metrics=["overall_acc"], sizes=[10])
    logits, label, _ = random_batch()
    result = run(build_evaluator(make_cfg(), space=space), logits, label)
    assert result["overall_metric"] == pytest.approx(
        100 * accuracy_score(label, logits.argmax(1)), abs=1e-9
    )


def test_classification_against_scikit_learn(tmp_path, capsys):
    g = torch.Generator().manual_seed(1)
    label = torch.randint(5, (300,), generator=g)
    label[0] = 5  # the only image of its class; class 6 has none
    logits = torch.randn(300, 7, generator=g)
    logits[torch.arange(300), label] += 1.5
    cfg = make_cfg(EVALUATOR="Classification", COMPUTE_CMAT=True, PER_CLASS_RESULT=True)
    cfg.OUTPUT_DIR = str(tmp_path)
    space = make_space(groups=["plants"], metrics=["overall_acc"], sizes=[7])
    evaluator = build_evaluator(cfg, lab2cname={0: "zero"}, space=space)
    result = run(evaluator, logits, label)
    predicted = logits.argmax(1)
    accuracy = 100 * accuracy_score(label, predicted)
    f1 = 100 * f1_score(label, predicted, average="macro", labels=label.unique())
    assert next(iter(result)) == "accuracy"
    assert result["accuracy"] == pytest.approx(accuracy)
    assert result["error_rate"] == pytest.approx(100 - accuracy)
    assert result["macro_f1"] == pytest.approx(f1)
    recalls = [100 * (predicted[label == c] == c).double().mean() for c in range(6)]
    assert result["perclass_accuracy"] == pytest.approx(float(sum(recalls)) / 6)
    matrix = torch.load(tmp_path / "cmat.pt", weights_only=True)
    expected = torch.tensor(confusion_matrix(label, predicted, normalize="true", labels=range(7)))
    torch.testing.assert_close(matrix, expected.double())
    out = capsys.readouterr().out
    assert f"* accuracy: {accuracy:.2f}%" in out and "* class: 0 (zero)" in out
    about = {"id": 0, "name": "task 0", "group": "plants", "metric": "overall_acc"}
    about |= {"value": result["accuracy"], "correct": (predicted == label).sum(), "total": 300}
    assert evaluator.tasks == [about]
    assert evaluator.suite["value"] == pytest.approx(accuracy)


@pytest.mark.parametrize("k", [1, 3])
def test_topk_accuracy(k):
    logits, label, _ = random_batch()
    (value,) = compute_accuracy(logits, label, topk=(k,))
    assert value.shape == (1,)
    assert value.item() == pytest.approx(topk_accuracy(logits.tolist(), label.tolist(), k))
    both = compute_accuracy((logits, None), label, topk=(1, k))
    assert both[1].item() == pytest.approx(value.item())


def test_topk_accuracy_refuses():
    with pytest.raises(ValueError, match=r"top-5 accuracy needs rows and at least 5 columns"):
        compute_accuracy(torch.zeros(9, 3), torch.zeros(9).long(), topk=(1, 5))


def test_unknown_evaluator():
    with pytest.raises(UserError, match="no evaluator named 'ClasificationMT'; did you mean Cl"):
        build_evaluator(make_cfg(EVALUATOR="ClasificationMT"), space=make_space())


def test_what_an_evaluator_cannot_do_is_refused():
    with pytest.raises(UserError, match="Classification takes one task, but the suite has 3"):
        build_evaluator(make_cfg(EVALUATOR="Classification"), space=make_space())
    with pytest.raises(UserError, match="COMPUTE_CMAT needs"):
        build_evaluator(make_cfg(COMPUTE_CMAT=True), space=make_space())
    with pytest.raises(ValueError, match="ClassificationMT needs the task space"):
        build_evaluator(make_cfg())


@pytest.mark.parametrize("name", ["Classification", "ClassificationMT"])
def test_nothing_to_evaluate(name):
    space = make_space(groups=[""], metrics=["overall_acc"], sizes=[4])
    evaluator = build_evaluator(make_cfg(EVALUATOR=name), space=space)
    for _ in range(2):  # without a batch, and with an empty one
        with pytest.raises(UserError, match="there is nothing to evaluate"):
            evaluator.evaluate()
        evaluator.process(torch.zeros(0, 4), torch.zeros(0).long())


def test_wrong_batches_are_refused():
    evaluator = build_evaluator(make_cfg(), space=make_space())
    logits, label, task = random_batch()
    with pytest.raises(UserError, match="suite of 3 tasks can only be evaluated with the task"):
        evaluator.process(logits, label)
    with pytest.raises(ValueError, match="logits have 4 columns for 10 classes"):
        evaluator.process(logits[:, :4], label, task)
    with pytest.raises(ValueError, match="label 9 of a task with"):
        evaluator.process(logits, label.fill_(9), task)


def test_the_base_says_what_is_missing():
    from dassl.evaluation import EvaluatorBase

    base = EvaluatorBase(make_cfg())
    for call in (base.reset, base.evaluate, lambda: base.process(None, None)):
        with pytest.raises(NotImplementedError, match="EvaluatorBase must override"):
            call()


@pytest.mark.parametrize("metric", ["overall_acc", "mean_acc"])
def test_task_metric_of_many_models(metric):
    logits = torch.randn(4, 30, 5, generator=torch.Generator().manual_seed(3))  # of four models
    label = torch.arange(30) % 4  # the last class has no image
    hits = [label[rows.argmax(1) == label].bincount(minlength=5) for rows in logits]
    found = task_metric(metric, torch.stack(hits), label.bincount(minlength=5))
    for rows, value in zip(logits, found, strict=True):
        (expected,) = per_task_metrics(rows.tolist(), label.tolist(), [0] * 30, [5], [metric])
        assert value.item() == pytest.approx(expected)
