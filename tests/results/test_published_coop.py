"""Our results on CoOp's eleven datasets beside published ones."""

import pytest

from results import published_coop
from results.aggregate import aggregate
from results.compare import base_and_new
from results.published import GENERAL10
from results.published_coop import SETS, published_on_sets
from results.read import make_run
from results.report import Choices, Report
from tests._records import record

AS_PUBLISHED = {
    "backbone": "ViT-B/16",
    "tasks": "all",
    "selection": "last_step",
    "metric_rule": "overall_acc",
    "split": "zhou",
}


def runs(folder, suites=SETS, seeds=(1, 2, 3), value=80.0, **keys):
    """Runs on single datasets, described as the published ones were."""
    found = []
    for suite in suites:
        for seed in seeds:
            content = record(tasks=(("t", "", value),), suite=suite, seed=seed)
            content["protocol"] |= {**AS_PUBLISHED, **keys}
            found.append(make_run(folder / suite / str(seed), content))
    return found


def both_sides(folder, base=80.0, new=60.0, **keys):
    keys = {"shots": 16, **keys}
    found = runs(folder / "b", classes="base", value=base, **keys)
    return [*found, *runs(folder / "n", classes="new", value=new, **keys)]


def lines(parts):
    """The cells of the first table, by dataset, method and numbers."""
    found = [[cell.text for cell in row] for row in parts[0].rows]
    return {tuple(row[:3]): row[3:] for row in found}


def test_the_files_as_shipped():
    base_new, few_shot = published_coop.base_new_sources(), published_coop.few_shot_sources()
    assert {s.dataset for s in base_new} == {*SETS, "average"}
    assert all(s.source for s in (*base_new, *few_shot))
    coop = [s for s in base_new if (s.method, s.dataset) == ("CoOp", "average")]
    assert len({s.source for s in coop}) == 4
    tcp = next(s for s in few_shot if s.method == "TCP")
    assert tcp.values == {"1": 70.63, "2": 73.59, "4": 76.07, "8": 78.39, "16": 80.98}
    assert {s.method for s in base_new if s.transductive} == {"PromptKD"}
    for method in {s.method for s in base_new}:  # averages are those of the eleven rows
        rows = [s for s in base_new if s.method == method]
        for source in {s.source for s in rows}:
            own = {s.dataset: s.values for s in rows if s.source == source}
            if len(own) == 12:
                mean = sum(own[name]["new"] for name in SETS) / 11
                assert own["average"]["new"] == pytest.approx(mean, abs=0.01), (method, source)


def test_base_to_new_beside_the_range_over_sources(tmp_path):
    pairs = base_and_new(both_sides(tmp_path, method="CoOp-CA"))
    found = lines(published_on_sets([], pairs))
    assert found["Caltech101", "CoOp-CA", "ours"] == ["80.00 ± 0.00", "60.00 ± 0.00", "68.57"]
    assert found["Caltech101", "CoOp", "published"] == ["98.00", "89.81", "93.73"]
    assert found["average", "CoOp-CA", "ours"] == ["80.00", "60.00", "68.57"]
    assert found["average", "CoOp", "published, 4 sources"] == [
        "81.50 to 82.69",
        "63.22 to 69.77",
        "71.66 to 75.18",
    ]
    places = list(found)
    assert places[-1] == ("average", "PromptKD (transductive)", "published, 2 sources")
    assert ("average", "TCP", "published") in found  # not run here


def test_settings_in_brackets_are_no_part_of_the_methods_name(tmp_path):
    found = [
        run
        for n in (4, 16)
        for run in both_sides(tmp_path / str(n), suites=SETS[1:2], options={"N_CTX": n})
    ]
    shown = lines(published_on_sets([], base_and_new(found)))
    assert ("Caltech101", "CoOp-CA (N_CTX 4)", "ours") in shown
    assert shown["Caltech101", "CoOp", "published"] == ["98.00", "89.81", "93.73"]


def test_no_average_without_all_datasets(tmp_path):
    pairs = base_and_new(both_sides(tmp_path, suites=SETS[:3], method="KgCoOp"))
    found = lines(published_on_sets([], pairs))
    assert {dataset for dataset, _, _ in found} == set(SETS[:3])


def test_few_shot_averages(tmp_path):
    rows = aggregate(
        runs(tmp_path, shots=16, method="LP++", value=81.0, selection="none, C on val")
    )
    found = lines(published_on_sets(rows, []))
    assert found["average", "LP++", "ours"] == ["–", "–", "–", "–", "81.00"]
    assert found["average", "LP++", "published"][-1] == "80.32"
    assert found["average", "LP", "published, 2 sources"][0] == "45.77 to 45.83"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"backbone": "RN50"}, "backbone is RN50, published: ViT-B/16"),
        ({"metric_rule": "per_task"}, "metric_rule is per_task, published: overall_acc"),
        ({"selection": "best_val"}, "selection is best_val, published: last_step"),
    ],
)
def test_a_run_that_does_not_match_is_not_compared(tmp_path, change, why):
    pairs = base_and_new(both_sides(tmp_path, suites=("DescribableTextures",), **change))
    (notes,) = published_on_sets([], pairs)
    assert "not compared" in notes.lines[0] and why in notes.lines[0]


def test_what_differs_is_named_once(tmp_path):
    changes = {"suites": ("UCF101",), "seeds": (1, 2), "split": "own", "method": "KgCoOp"}
    pairs = base_and_new(both_sides(tmp_path, **changes))
    _, notes = published_on_sets([], pairs)
    assert (
        len(notes.lines) == 1 and "seeds 1, 2" in notes.lines[0] and "split own" in notes.lines[0]
    )


def test_the_report_shows_what_there_is(tmp_path):
    titles = [p.title for p in Report(both_sides(tmp_path), Choices(published=True)).parts()]
    assert any(title.startswith("Base to new at 16 shots") for title in titles)
    assert "Published numbers" not in titles  # of SoftCPT's suites, which were not run
    other = Report(runs(tmp_path / "x", suites=("Trees",)), Choices(published=True)).parts()
    assert "Published numbers" in [part.title for part in other]


def test_a_dataset_of_general_10_that_was_run_alone_too(tmp_path):
    """Its own run is shown, and a note says that there is another one."""
    tasks, suite = [(name, "", 60.0) for name in GENERAL10], []
    for classes in ("base", "new"):
        content = record(tasks=tasks, suite="General10", seed=1, shots=16, classes=classes)
        content["protocol"] |= AS_PUBLISHED
        suite.append(make_run(tmp_path / classes, content))
    alone = both_sides(tmp_path / "alone", suites=("Caltech101",))
    parts = published_on_sets([], base_and_new([*suite, *alone]))
    found = lines(parts)
    assert found["Caltech101", "CoOp-CA", "ours"][0] == "80.00 ± 0.00"
    assert found["EuroSAT", "CoOp-CA", "ours"][0] == "60.00"
    assert "Caltech101, CoOp-CA: the first of 2 results is shown" in parts[-1].lines
