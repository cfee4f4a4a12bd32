"""predictions.npz, and McNemar's test on the same images."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from dassl.metrics.calibration import calibration_error
from dassl.utils import UserError
from results.aggregate import aggregate
from results.html_report import write_report
from results.mistakes import find_mistakes
from results.paired_images import ImagePairs, image_table, mcnemar, paired_images
from results.predictions import FILE, read_predictions
from results.read import find_runs
from results.report import Choices, Report
from tests.conftest import COUNTS, TASKS

SIZES = [len(task.classnames) for task in TASKS]


@pytest.mark.parametrize("method", ["MTCoOp", "CoOp", "ZeroshotCLIP"])
def test_predictions_agree_with_the_results(method, run, tmp_path):
    record = run(method, "OPTIM.MAX_EPOCH", 1)
    found = read_predictions(tmp_path / "run")
    assert len(found.label) == len(found.paths) == sum(SIZES) * COUNTS["test"]
    assert found.paths[0] == "0_0_6.png" and len(set(found.paths)) == len(found.paths)
    for t, task in enumerate(record["tasks"]):
        own = found.task == t
        assert found.correct[own].sum() == task["correct"] and own.sum() == task["total"]
        classes, width = found.classes[own], min(SIZES[t], found.classes.shape[1])
        assert (classes[:, :width] >= 0).all() and (classes[:, width:] == -1).all()
        assert classes.max() < SIZES[t]
        probabilities = found.probabilities[own].astype(float)
        assert np.allclose(probabilities.sum(1), 1, atol=0.01)
        label = found.label[own][:, None]
        right = np.where(classes == label, probabilities, 0).sum(1)
        assert np.allclose(right, found.label_probability[own], atol=1e-3)


def test_paired_images(run, tmp_path):
    for method in ("MTCoOp", "CoOp"):
        for seed in (1, 2):
            output = tmp_path / method / f"seed{seed}"
            run(method, "OPTIM.MAX_EPOCH", 1, output=output, flags=("--seed", str(seed)))
    runs = find_runs(tmp_path)
    rows = aggregate(runs)
    (pair,) = paired_images(rows, reference="CoOp-CA")
    assert (pair.method, pair.reference) == ("SoftCPT-NATA", "CoOp-CA")
    assert pair.images == sum(SIZES) * COUNTS["test"] and len(pair.p_values) == 2
    counts = zip(pair.only_method, pair.only_reference, strict=True)
    for seed, (ours, theirs) in enumerate(counts, start=1):
        x = read_predictions(tmp_path / "MTCoOp" / f"seed{seed}").correct
        y = read_predictions(tmp_path / "CoOp" / f"seed{seed}").correct
        assert (ours, theirs) == ((x & ~y).sum(), (~x & y).sum())
    titles = [part.title for part in Report(runs, Choices()).parts()]
    assert any("McNemar" in title for title in titles)
    for folder in (tmp_path / "CoOp").iterdir():
        (folder / FILE).unlink()
    assert not paired_images(rows)
    (tmp_path / "CoOp" / "seed1" / FILE).write_bytes(b"broken")
    with pytest.raises(UserError, match=FILE):
        paired_images(rows)


def test_mcnemar_is_a_fair_coin():
    """Twice the smaller tail of a fair coin's throws, at most 1."""
    for first, second in ((0, 0), (1, 0), (3, 3), (2, 9), (40, 20)):
        total, few = first + second, min(first, second)
        tail = sum(math.comb(total, k) for k in range(few + 1)) / 2**total
        assert mcnemar(first, second) == pytest.approx(min(1, 2 * tail))


def test_a_row_is_marked_where_every_seed_favours_one_method_below_5_percent():
    marked = []
    for first, second in (((6, 7), (0, 0)), ((5, 7), (0, 0)), ((6, 0), (0, 7))):
        values = tuple(map(mcnemar, first, second))  # of 6 to 0: 0.031, of 5 to 0: 0.0625
        pairs = ImagePairs("Trees", 4, "A", "B", first, second, values, 100)
        marked.append(image_table([pairs]).rows[0][-1].best)
    assert marked == [True, False, False]


def test_mistakes(run, tmp_path):
    record = run("MTCoOp", "OPTIM.MAX_EPOCH", 1)
    found = read_predictions(tmp_path / "run")
    mistakes = find_mistakes(tmp_path / "run")
    assert [one.task for one in mistakes] == [task.name for task in TASKS]
    for t, one in enumerate(mistakes):
        task, names = record["tasks"][t], TASKS[t].classnames
        assert (one.images, one.wrong) == (task["total"], task["total"] - task["correct"])
        own = found.task == t
        wrong = own & ~found.correct
        assert sum(count for _, _, count in one.confusions) == one.wrong
        for right, predicted, count in one.confusions:
            places = (found.label == names.index(right)) & (
                found.classes[:, 0] == names.index(predicted)
            )
            assert right != predicted and (places & own).sum() == count
        if one.confident:
            first = one.confident[0]
            place = found.paths.index(first.path)
            assert wrong[place] and names[found.label[place]] == first.right
            assert first.probability == found.probabilities[wrong, 0].max()
            assert first.file.is_file()  # Toy's folder is no subfolder of DATASET.ROOT
        for name, correct, total in map(astuple, one.classes):
            rows = own & (found.label == names.index(name))
            assert (correct, total) == (found.correct[rows].sum(), rows.sum())
        if one.matrix:
            counts = np.array(one.matrix.counts)
            assert one.matrix.whole and counts.trace() == task["correct"]
            assert counts.sum() == task["total"]
        assert one.calibration.nll == pytest.approx(-np.log(found.label_probability[own]).mean())
    report = write_report(
        Report(find_runs(tmp_path), Choices()), tmp_path / "report.html"
    ).read_text()
    assert "Most confident mistakes" in report


def test_calibration_error():
    """Two bins: 0.5 right of 2 at 0.9, and both wrong at 0.3."""
    probability, correct = np.array([0.9, 0.9, 0.3, 0.3]), np.array([True, False, False, False])
    assert calibration_error(probability, correct) == pytest.approx((0.8 + 0.6) / 4)
