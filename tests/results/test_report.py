"""Numbers of the report against hand-computed ones."""

from dataclasses import replace

import pytest
import yaml

from dassl.utils import UserError
from results.aggregate import aggregate
from results.compare import (
    base_and_new,
    harmonic_mean,
    missing_runs,
    paired_differences,
    suspicious_runs,
)
from results.read import Run, make_run, read_run
from results.report import Choices, Report
from tests._records import record, write


def run(folder, method, seed, value, **keys):
    """A complete run whose two tasks have value + 5 and value - 5."""
    tasks = (("oak", "", value + 5), ("elm", "", value - 5))
    return make_run(folder, record(tasks=tasks, method=method, seed=seed, **keys))


def experiment(folder, method, values, **keys):
    return [run(folder / f"{method}{s}", method, s, v, **keys) for s, v in enumerate(values, 1)]


def cells(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_differences_are_taken_seed_by_seed(tmp_path):
    """A has 1, 2, 6 more than B on the seeds that both have; the others cannot be compared."""
    a = experiment(tmp_path, "A", [61.0, 52.0, 76.0, 90.0])
    b = experiment(tmp_path, "B", [60.0, 50.0, 70.0])
    c = experiment(tmp_path, "C", [10.0, 10.0], backbone="ViT-B/16")
    zero_shot = experiment(tmp_path, "zero-shot", [50.0])
    d = run(tmp_path / "d", "D", 1, 70.0, suite="Apes")
    e = run(tmp_path / "e", "E", 1, 80.0, shots=16)
    f = run(tmp_path / "f", "F", 9, 50.0)  # another seed
    rows = aggregate([*a, *b, *c, *zero_shot, d, e, f])
    found = {(d.method, d.reference): d for d in paired_differences(rows)}
    to_zero = {(method, "zero-shot") for method in "ABEF"}
    assert found.keys() == {("A", "B"), *to_zero}
    difference = found["A", "B"]
    assert (difference.mean, difference.n, difference.shots) == (3.0, 3, 4)
    assert difference.half_width == pytest.approx(6.573, abs=1e-3) and not difference.significant
    assert found["A", "zero-shot"].mean == 19.75 and found["A", "zero-shot"].n == 4
    worse = replace(difference, mean=-7.0)
    assert worse.significant and not replace(worse, half_width=None).significant
    found = [(d.method, d.mean) for d in paired_differences(rows, "zero-shot")]
    assert found == [("A", 19.75), ("B", 10.0), ("F", 0.0), ("E", 30.0)]
    to_b = {d.method: (d.mean, d.n) for d in paired_differences(rows, "B")}
    assert to_b == {"A": (3.0, 3), "zero-shot": (-10.0, 3)}
    seeds_of_zero_shot = experiment(tmp_path / "z", "zero-shot", [50.0, 52.0])
    (paired,) = paired_differences(aggregate([*b, *seeds_of_zero_shot]))
    assert (paired.mean, paired.n) == (4.0, 2)  # 60 - 50 and 50 - 52
    with pytest.raises(UserError, match="no method named 'b'; did you mean B"):
        paired_differences(rows, "b")


def test_tables_by_shots(tmp_path):
    """Means 62 and 70 of A, 60 of B's complete seed; the mean over shots needs all of them."""
    costs = {"trainable": {"parameters": 1024}, "run": {"seconds": 90.0}}
    costs["run"] |= {"peak_memory": 5e9, "peak_gpu_memory": 2.5e9}
    costs["run"]["time_split"] = {"data": 10.0, "image": 20.0, "text": 25.0, "rest": 5.0}
    a = [
        make_run(
            tmp_path / f"a{shots}{seed}",
            {**record(method="A", shots=shots, seed=seed, tasks=(("oak", "", v),)), **costs},
        )
        for shots, values in ((1, (60.0, 64.0)), (4, (70.0, 70.0)))
        for seed, v in enumerate(values, 1)
    ]
    b = [make_run(tmp_path / "b", record(method="B", shots=1, tasks=(("oak", "", 60.0),)))]
    table = Report([*a, *b], Choices()).parts()[0]
    assert table.head == ("method", "learned", "s at 4", "MB at 4", "1", "4", "mean")
    assert cells(table) == [
        ["A", "1,024", "60", "2,500", "62.0 ± 2.0", "70.0 ± 0.0", "66.0 ± 1.0"],
        ["B", "", "", "", "60.0 (1 of 2)", "–", "–"],
    ]
    assert [cell.best for cell in table.rows[0]] == [*[False] * 4, True, False, False]
    zero_shot = make_run(tmp_path / "z", record(method="zero-shot", tasks=(("oak", "", 50.0),)))
    table = Report([*a, zero_shot], Choices()).parts()[0]
    assert "50.0" in cells(table)[0]  # not "(1 of 2)": one run is that of every seed
    sampled = Report(a, Choices(spread="sample")).parts()[0]
    assert cells(sampled)[0][4] == "62.0 ± 2.8"
    by_task = next(p for p in Report(a, Choices()).parts() if "task by task" in p.title)
    assert by_task.head[-3:] == ("learned", "s", "MB")
    assert [row[-3:] for row in cells(by_task)] == [["1,024", "60", "2,500"]] * 2


def test_a_row_without_all_its_seeds_is_never_the_best(tmp_path):
    runs = [
        make_run(tmp_path / f"{method}{seed}", record(method=method, seed=seed, tasks=tasks))
        for method, seed, tasks in (
            *(("A", seed, (("oak", "", 60.0),)) for seed in (1, 2)),
            *(("B", seed, (("oak", "", 50.0),)) for seed in (1, 2)),
            ("C", 1, (("oak", "", 90.0),)),
        )
    ]
    runs.append(make_run(tmp_path / "C2", record(method="C", seed=2, status="failed")))
    tables = [part for part in Report(runs, Choices()).parts() if part.title.startswith("Trees")]
    for table in tables:  # by shots, and task by task
        assert [any(cell.best for cell in row) for row in table.rows] == [True, False, False]
    assert len(tables) == 2


def test_base_and_new_and_their_harmonic_mean(tmp_path):
    """H of the means 80 and 60: 2 * 80 * 60 / 140 = 68.571."""
    base = experiment(tmp_path / "b", "A", [78.0, 82.0], classes="base")
    new = experiment(tmp_path / "n", "A", [59.0, 61.0], classes="new")
    lone = experiment(tmp_path / "l", "B", [70.0], classes="base")
    (pair,) = base_and_new([*base, *new, *lone])
    assert pair.values("overall_metric")[2] == pytest.approx(68.5714, abs=1e-4)
    assert harmonic_mean(0.0, 0.0) == 0.0 and harmonic_mean(None, 1.0) is None
    table = next(p for p in Report([*base, *new], Choices()).parts() if "base to new" in p.title)
    assert cells(table) == [
        ["mean", "A", "4", "80.0 ± 2.0", "60.0 ± 1.0", "68.6", "", "", ""],
        ["oak", "A", "4", "85.0 ± 2.0", "65.0 ± 1.0", "73.7", "", "", ""],
        ["elm", "A", "4", "75.0 ± 2.0", "55.0 ± 1.0", "63.5", "", "", ""],
    ]
    assert "H = 2 base new / (base + new)" in table.notes[0]


def test_what_is_missing_is_named(tmp_path):
    a = experiment(tmp_path, "A", [60.0, 61.0, 62.0])
    b = experiment(tmp_path, "B", [60.0])
    stopped = make_run(tmp_path / "x", record(status="failed", method="B", seed=2))
    more = experiment(tmp_path / "16", "A", [70.0], shots=16)
    again = run(tmp_path / "again", "B", 1, 60.0)
    missing = list(missing_runs(aggregate([*a, *b, stopped, *more, again])))
    assert f"Trees, B, 4 shots, seed 2: failed, {tmp_path / 'x'}" in missing
    assert "Trees, B, 4 shots, seed 3: no run" in missing
    assert "Trees, A, 16 shots, seed 2: no run" in missing
    assert "Trees, B: no run with 16 shots" in missing
    repeated = f"Trees, B, 4 shots, seed 1: {tmp_path / 'again'} repeats another run"
    assert f"{repeated} and is not counted" in missing
    assert len(missing) == 6


def test_collapsed_runs_are_flagged(tmp_path):
    for name, own in {"zs": {}, "0": {"suite": "Apes"}, "1": {"backbone": "RN101"}}.items():
        value = 60.0 if name == "zs" else 99.0  # of what is not comparable
        write(tmp_path / name, method="zero-shot", tasks=(("oak", "", value),), **own)
    write(tmp_path / "low", method="A", seed=1, shots=1, tasks=(("oak", "", 12.0),))
    write(tmp_path / "lost", method="A", seed=2, shots=1, tasks=(("oak", "", 70.0),))
    (tmp_path / "lost" / "log.txt").write_text("epoch [1/2]\tloss nan (nan)\tlr 1e-3\n")
    write(tmp_path / "fine", method="A", seed=3, shots=1, tasks=(("oak", "", 70.0),))
    (tmp_path / "fine" / "log.txt").write_text("epoch [1/2]\tloss 0.3 (0.4)\tnanny\n")
    names = ("zs", "0", "1", "low", "lost", "fine")
    flagged = list(suspicious_runs(aggregate([read_run(tmp_path / name) for name in names])))
    assert flagged == [
        "Trees, RN50, A, 1 shot, seed 1: below zero-shot (12.0 < 60.0)",
        "Trees, RN50, A, 1 shot, seed 2: its log shows a loss that is not finite",
    ]


def test_runs_with_other_settings_are_never_averaged(tmp_path):
    """The learning rate is in no protocol, only in config.yaml."""
    for seed, rate in ((1, 0.1), (2, 0.1), (3, 0.5)):
        folder = write(tmp_path / f"seed{seed}", seed=seed)
        config = {"SEED": seed, "OPTIM": {"LR": rate}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = aggregate([read_run(tmp_path / f"seed{seed}") for seed in (1, 2, 3)])
    assert [(row.method, len(row.runs)) for row in rows] == [
        ("CoOp-CA (OPTIM.LR 0.1)", 2),
        ("CoOp-CA (OPTIM.LR 0.5)", 1),
    ]


def test_what_may_not_be_compared_gets_tables_of_its_own(tmp_path):
    """Other backbones and other classes never compete for the best, nor share a row."""
    found = [
        run(tmp_path / f"{backbone}{classes}", "A", 1, 60.0, backbone=backbone, classes=classes)
        for backbone in ("RN50", "RN101")
        for classes in ("all", "base")
    ]
    stopped = make_run(tmp_path / "x", record(status="failed", method="A", seed=2, classes="all"))
    rows = aggregate([*found, stopped])
    assert [(row.suite, row.method, row.seeds) for row in rows] == [
        ("Trees, RN101", "A", "1"),
        ("Trees, RN101, base classes", "A", "1"),
        ("Trees, RN50", "A", "1 of 2"),
        ("Trees, RN50, base classes", "A", "1"),
    ]
    assert not paired_differences(rows)
    unknown = Run(tmp_path / "y", "failed", method="A", suite="Trees", shots=4, seed=3)
    assert "1 of 2" in {row.seeds for row in aggregate([*found, unknown])}


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as YAML"), ("3", "must hold")])
def test_a_broken_config_is_named(tmp_path, text, message):
    folder = write(tmp_path / "seed1")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=f"{folder / 'config.yaml'} {message}"):
        read_run(folder)
