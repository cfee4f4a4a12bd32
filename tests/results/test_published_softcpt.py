"""Comparison with the published numbers of SoftCPT."""

import pytest

from results import published_softcpt
from results.aggregate import aggregate
from results.read import make_run
from tests._records import record

PLANTS = tuple((f"plant {i}", "", 70.0) for i in range(6))
AS_PUBLISHED = {
    "suite": "Plant6",
    "method": "SoftCPT-NATA",
    "tasks": "all",
    "classes": "all",
    "selection": "last_step",
    "metric_rule": "per_task",
}


def plant_runs(folder, seeds=(1, 2, 3), **keys):
    """Runs of six tasks at 70, described as the published ones were."""
    found = []
    for seed in seeds:
        content = record(tasks=PLANTS, seed=seed)
        content["protocol"] |= {**AS_PUBLISHED, **keys}
        content["trainable"] = {"parameters": 8392704}
        found.append(make_run(folder / str(seed), content))
    return aggregate(found)


def test_the_table_as_shipped():
    rows = published_softcpt.published_rows()
    assert len(rows) == 52 and {row.suite for row in rows} == set(published_softcpt.TASKS)
    nata = next(r for r in rows if (r.suite, r.method) == ("Plant-6", "SoftCPT-NATA"))
    assert (nata.scores[4].mean, nata.scores[4].spread) == (68.72, 1.53)
    assert (nata.parameters, nata.minutes) == (8392704, 5.83)
    zero_shot = next(r for r in rows if (r.suite, r.method) == ("RS-8", "ZS-CLIP"))
    assert zero_shot.scores.keys() == {0} and zero_shot.scores[0].mean == 47.91


def test_a_run_that_matches_is_compared(tmp_path):
    (found,) = published_softcpt.compare(plant_runs(tmp_path))
    assert found.difference == pytest.approx(70.0 - 68.72)
    assert found.differs == () and found.why_not == ()
    table, notes = published_softcpt.published_parts([found.row])
    assert [cell.text for cell in table.rows[0]][3:] == [
        "70.00 ± 0.00 (3)",
        "68.72 ± 1.53 (3)",
        "+1.28",
    ]
    assert "Unknown of the published numbers" in notes.lines[-1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"backbone": "ViT-B/16"}, "backbone is ViT-B/16, published: RN50"),
        ({"classes": "base"}, "classes is base, published: all"),
        ({"metric_rule": "overall_acc"}, "metric_rule is overall_acc, published: per_task"),
        ({"selection": "best_val"}, "selection is best_val, published: last_step"),
        ({"suite": "General10"}, "6 tasks, published: 10"),
        (
            {"suite": "RS8"},
            "its published datasets are not known, so ours are this project's choice",
        ),
        (
            {"method": "ProtoNet", "selection": "none"},
            "its published numbers are far below a linear probe, so hardly of CLIP features",
        ),
    ],
)
def test_a_difference_that_matters_suppresses_the_comparison(tmp_path, change, why):
    (found,) = published_softcpt.compare(plant_runs(tmp_path, **change))
    assert found.difference is None and why in found.why_not
    (notes,) = published_softcpt.published_parts([found.row])
    assert f"not compared: {'; '.join(found.why_not)}" in notes.lines[0]


def test_methods_that_are_not_trained_by_steps_are_compared(tmp_path):
    rows = plant_runs(tmp_path, method="LP-CLIP", selection="none, C on val")
    (found,) = published_softcpt.compare(rows)
    assert found.why_not == () and found.difference == pytest.approx(70.0 - 66.91)
    assert any("exchanges" in text for text in found.differs)  # the metrics


def test_other_differences_are_named(tmp_path):
    (found,) = published_softcpt.compare(plant_runs(tmp_path, seeds=(1, 2)))
    assert found.differs == ("seeds 1, 2 (published: 1, 2, 3)",)
    rows = plant_runs(tmp_path, method="CoOp-MT")
    (found,) = published_softcpt.compare(rows)
    assert found.differs == ("8,392,704 learned values (published: 8,192)",)
    table, notes = published_softcpt.published_parts(rows)
    assert table.rows[0][0].text == "CoOp-MT †" and "differs in 8,392,704" in notes.lines[0]


@pytest.mark.parametrize("method", ["SoftCPT-NATA (more)", "CoOp-MT (per task)", "CATA"])
def test_variants_are_not_the_published_method(tmp_path, method):
    assert not list(published_softcpt.compare(plant_runs(tmp_path, method=method)))


def test_suites_and_shots_that_the_table_does_not_hold(tmp_path):
    assert not list(published_softcpt.compare(plant_runs(tmp_path, shots=3)))
    (notes,) = published_softcpt.published_parts(plant_runs(tmp_path, suite="Trees"))
    assert "no run has a suite, method and number of shots" in notes.lines[0]
