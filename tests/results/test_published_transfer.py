"""Our results of models trained on ImageNet beside published ones."""

import pytest

from results.aggregate import aggregate
from results.published import GENERAL10
from results.published_transfer import TARGETS, published_transfer, transfer_sources
from results.read import make_run
from results.rendering import Notes
from results.report import Choices, Report
from tests._records import record

AS_PUBLISHED = {"backbone": "ViT-B/16", "tasks": "all", "classes": "all", "shots": 16}
AS_PUBLISHED |= {"selection": "last_step", "metric_rule": "overall_acc", "method": "CoOp-CA"}


def runs(folder, suite, names, protocol, value, **keys):
    trained = {} if suite == "ImageNet" else {"trained_on": "ImageNet"}
    found = []
    for seed in (1, 2, 3):
        content = record(tasks=[(name, "", value) for name in names], suite=suite, seed=seed)
        content["protocol"] |= {**AS_PUBLISHED, "name": protocol, **trained, **keys}
        found.append(make_run(folder / suite / str(seed), content))
    return found


def cross_dataset(folder, **keys):
    source = runs(folder, "ImageNet", ["object"], "cross_dataset", 71.0, **keys)
    return [*source, *runs(folder, "General10", GENERAL10, "cross_dataset", 60.0, **keys)]


def shown(parts):
    """Cells of the first table by method and kind of number, each by column."""
    head = parts[0].head
    return {
        tuple(cell.text for cell in row[:2]): dict(
            zip(head[2:], [cell.text for cell in row[2:]], strict=True)
        )
        for row in parts[0].rows
    }


def test_the_file_as_shipped():
    sources = transfer_sources()
    assert sources.keys() == TARGETS.keys()
    for method, numbers in sources["cross_dataset"].items():
        if len(numbers) > 1:
            mean = sum(numbers[name] for name in GENERAL10) / 10
            assert numbers["average"] == pytest.approx(mean, abs=0.006), method
    assert sources["domain_generalization"]["KgCoOp"] == {"ImageNet": 70.66, "average": 60.11}


def test_cross_dataset_on_general_10(tmp_path):
    found = shown(published_transfer(aggregate(cross_dataset(tmp_path))))
    ours, published = found["CoOp-CA", "ours"], found["CoOp", "published"]
    assert ours["ImageNet"] == "71.00 ± 0.00" and published["ImageNet"] == "–"
    assert ours["EuroSAT"] == "60.00 ± 0.00" and published["EuroSAT"] == "46.39"
    assert (ours["average"], published["average"]) == ("60.00", "63.88")
    assert ("PromptKD (transductive)", "published") in found  # not run here


def test_domain_generalization(tmp_path):
    protocol = "domain_generalization"
    found = [
        run
        for suite in ("ImageNet", *TARGETS[protocol])
        for run in runs(tmp_path, suite, ["object"], protocol, 50.0)
    ]
    table = shown(published_transfer(aggregate(found)))
    assert table["CoOp-CA", "ours"]["average"] == "50.00"
    assert table["CoOp", "published"]["ImageNetA"] == "–"
    some = shown(published_transfer(aggregate(found[:6])))
    assert some["CoOp-CA", "ours"]["average"] == "–"  # of the source and one of the four


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "RN50"},
        {"metric_rule": "per_task"},
        {"trained_on": "Caltech101"},
        {"trained_on": "ImageNet 4 shots"},
        {"init_from": "EuroSAT 16 shots"},
        {"selection": "best_val"},
    ],
    ids=str,
)
def test_other_conditions_are_not_compared(tmp_path, change):
    (notes,) = published_transfer(aggregate(cross_dataset(tmp_path, **change)))
    ((key, value),) = change.items()
    assert isinstance(notes, Notes) and f"not compared: {key} is {value}" in notes.lines[0]


def test_runs_of_these_protocols_are_no_few_shot_runs(tmp_path):
    parts = Report(cross_dataset(tmp_path), Choices(published=True)).parts()
    titles = [part.title for part in parts]
    assert sum("beside published numbers" in title for title in titles) == 1
    assert not any(title.startswith("Few-shot on CoOp's datasets") for title in titles)


def test_a_dataset_that_was_evaluated_twice(tmp_path):
    """Its own run is shown, and a note says that there is another one."""
    alone = runs(tmp_path / "alone", "Caltech101", ["object"], "cross_dataset", 99.0)
    parts = published_transfer(aggregate([*cross_dataset(tmp_path), *alone]))
    ours = shown(parts)["CoOp-CA", "ours"]
    assert (ours["Caltech101"], ours["average"]) == ("99.00 ± 0.00", "63.90")
    assert "Caltech101, CoOp-CA: the first of 2 results is shown" in parts[0].notes


def test_models_with_other_options_are_not_mixed(tmp_path):
    long, short = ({"options": {"N_CTX": n}} for n in (16, 4))
    source = runs(tmp_path, "ImageNet", ["object"], "cross_dataset", 71.0, **long)
    found = [*source, *runs(tmp_path, "EuroSAT", ["land"], "cross_dataset", 60.0, **short)]
    table = shown(published_transfer(aggregate(found)))
    assert table["CoOp-CA (N_CTX 16)", "ours"]["EuroSAT"] == "–"
    assert table["CoOp-CA (N_CTX 4)", "ours"]["ImageNet"] == "–"


def test_a_suite_without_one_of_its_tasks_is_not_compared(tmp_path):
    found = runs(tmp_path, "General10", GENERAL10[:9], "cross_dataset", 60.0)
    (notes,) = published_transfer(aggregate(found))
    assert "9 tasks are evaluated, published: 10" in notes.lines[0]
