"""Reading, grouping, tables and figures of runs."""

import pytest
from matplotlib import image

from dassl.utils import UserError
from results.aggregate import aggregate, columns, statistic
from results.compare import paired_differences
from results.few_shot_curves import draw_curves, panels_of
from results.read import Run, find_runs, make_run
from results.tables import format_table, shot_tables, task_tables
from tests._records import record, write

GROUPED = (("oak", "seen", 80.0), ("elm", "unseen", 40.0))


def runs(tmp_path, *protocols):
    """A complete run per set of protocol keys."""
    return [
        make_run(tmp_path / str(i), record(**{"seed": i, **keys}))
        for i, keys in enumerate(protocols)
    ]


def test_find_runs_keeps_order_and_hidden_folders_out(tmp_path):
    for name in ("b/seed2", "b/seed1", "a/seed1", ".trash/seed1", "b/seed1/task0"):
        write(tmp_path / name)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "log.txt").write_text("")
    found = [str(run.folder.relative_to(tmp_path)) for run in find_runs(tmp_path)]
    assert found == ["a/seed1", "b/seed1", "b/seed1/task0", "b/seed2", "c"]
    assert find_runs(tmp_path)[-1].status == "no results.json, and a log without an end"


def test_runs_behind_links_are_found_once(tmp_path):
    write(tmp_path / "disk" / "seed1")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(tmp_path / "disk")
    (tmp_path / "runs" / "b").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(tmp_path / "runs")
    found = [str(run.folder.relative_to(tmp_path)) for run in find_runs(tmp_path / "runs")]
    assert found == ["runs/a/seed1"]


def test_rows_are_sorted_by_shots_then_method(tmp_path):
    found = runs(
        tmp_path,
        {"method": "B", "shots": 16},
        {"method": "a", "shots": 16},
        {"method": "a", "shots": -1},
        {"method": "a", "shots": 2},
        {"method": "zero-shot", "shots": 16},
    )
    rows = aggregate(found)
    assert [(row.method, row.shots) for row in rows] == [
        ("zero-shot", 0),
        ("a", 2),
        ("a", 16),
        ("B", 16),
        ("a", -1),
    ]
    assert [row.method for row in aggregate(found, order=["B"])][2:4] == ["B", "a"]


def test_runs_that_differ_in_an_option_get_rows_of_their_own(tmp_path):
    found = runs(
        tmp_path,
        {"options": {"N_CTX": 4}, "shots": 1},
        {"options": {"N_CTX": 16}, "shots": 1},
        {"options": {"N_CTX": 16}, "shots": 2},
        {"method": "other", "shots": 2},
    )
    names = [(row.shots, row.method) for row in aggregate(found)]
    assert names == [
        (1, "CoOp-CA (N_CTX 16)"),
        (1, "CoOp-CA (N_CTX 4)"),
        (2, "CoOp-CA (N_CTX 16)"),
        (2, "other"),
    ]


def test_runs_on_other_data_get_rows_of_their_own(tmp_path):
    data = (("oak", "0a1b"), ("elm", "2c3d"), ("elm", "4e5f"), ("elm", ""))
    found = [
        make_run(
            tmp_path / f"{name}{content}{seed}",
            record(tasks=((name, "", 50.0),), seed=seed) | {"hashes": {"experiment": content}},
        )
        for name, content in data
        for seed in (1, 2)
    ]
    assert [(row.suite, row.seeds) for row in aggregate(found)] == [
        ("Trees (elm, data 2c3d)", "2"),
        ("Trees (elm, data 4e5f)", "2"),
        ("Trees (elm, data not recorded)", "2"),
        ("Trees (oak)", "2"),
    ]
    assert aggregate(found[:2])[0].suite == "Trees"


def test_unfinished_runs_join_their_row(tmp_path):
    done = runs(tmp_path, {"seed": 1}, {"seed": 2})
    stopped = make_run(tmp_path / "x", record(status="failed", seed=3))
    early = make_run(tmp_path / "y", {"schema": 1, "status": "running"})
    other = make_run(tmp_path / "z", record(status="failed", method="other"))
    brief = Run(tmp_path / "b", "failed", "CoOp-CA", "Trees", 4, 4)  # has recorded no settings
    rows = aggregate([stopped, *done, early, other, brief])
    assert [(row.method, row.seeds) for row in rows] == [("CoOp-CA", "2 of 4"), ("other", "0 of 1")]
    assert "| other | 4 | 0 of 1 | n/a | n/a | n/a |" in format_table(rows, "md")


def test_columns_of_groups_and_of_a_single_task(tmp_path):
    grouped = aggregate([make_run(tmp_path, record(tasks=GROUPED))])
    assert [title for _, title in columns(grouped)] == [
        "seen (mean)",
        "unseen (mean)",
        "oak",
        "elm",
    ]
    single = aggregate([make_run(tmp_path, record(tasks=GROUPED[:1]))])
    assert columns(single) == [("overall_metric", "oak")]


def test_tasks_of_one_name_are_kept_apart(tmp_path):
    run = make_run(tmp_path, record(tasks=(("oak", "", 1.0), ("oak", "", 2.0))))
    assert [run.get(key) for key in ("oak", "oak (task 1)", "nothing")] == [1.0, 2.0, None]


def test_values_that_are_not_there_are_left_out():
    assert statistic([None, 2.0, 4.0]).mean == 3.0
    assert statistic([None]).mean is None
    assert statistic([5.0], "sample").spread is None


def test_the_interval_is_students(tmp_path):
    stat = statistic([50.0, 52.0, 57.0], "interval")
    assert stat.mean == 53.0
    assert stat.spread == pytest.approx(4.302653 * (13 / 3) ** 0.5)  # t of 2 degrees of freedom
    two = statistic([1.0, 3.0], "interval")
    assert (two.mean, two.spread) == (2.0, pytest.approx(12.706, rel=1e-4))
    assert statistic([50.0], "interval").spread is None
    tasks = {s: (("oak", "", 50.0 + s),) for s in (1, 2)}
    runs = [make_run(tmp_path / str(s), record(seed=s, tasks=t)) for s, t in tasks.items()]
    table = format_table(aggregate(runs), "md", spread="interval")
    assert "51.5 ± 6.4" in table and "95 % interval" in table


def test_wide_text_tables_are_cut_into_parts(tmp_path):
    tasks = tuple((f"a task with a long name {i}", "", 50.0) for i in range(12))
    text = format_table(aggregate([make_run(tmp_path, record(tasks=tasks))]))
    assert max(map(len, text.splitlines())) <= 110
    assert text.count("method") > 1 and "long name 11" in text


def test_suites_get_a_table_each(tmp_path):
    rows = aggregate(runs(tmp_path, {"suite": "Trees"}, {"suite": "Flowers"}))
    text = format_table(rows, "md")
    assert text.index("### Flowers: mean ± std") < text.index("### Trees: mean ± std")


def test_unknown_table_format():
    with pytest.raises(UserError, match="no table format named 'html'"):
        format_table([], "html")


def test_panels_are_groups_or_suites(tmp_path):
    rows = aggregate([make_run(tmp_path, record(tasks=GROUPED))])
    assert [(panel.title, panel.key) for panel in panels_of(rows)] == [
        ("seen", "seen"),
        ("unseen", "unseen"),
    ]
    two = runs(tmp_path, {"suite": "A", "tasks": GROUPED}, {"suite": "B"})
    titles = [panel.title for panel in panels_of(aggregate(two))]
    assert titles == ["A: seen", "A: unseen", "B"]


@pytest.mark.parametrize("tasks", [GROUPED, GROUPED[:1]])
def test_figure_is_drawn(tmp_path, tasks):
    protocols = [
        {"method": f"method {m}", "shots": shots, "seed": seed, "tasks": tasks}
        for m in range(7)
        for shots in (1, 4, -1)
        for seed in (1, 2)
    ]
    zero_shot = [{"method": name, "tasks": tasks} for name in ("zero-shot", "zero-shot (ensemble)")]
    rows = aggregate(runs(tmp_path, *protocols, *zero_shot))
    path = draw_curves(rows, tmp_path / "new" / "curves.png", dpi=50)
    pixels = image.imread(path)
    assert path == tmp_path / "new" / "curves.png"
    assert pixels.shape[0] > 100 and pixels[..., :3].std() > 0.05


def test_figure_of_zero_shot_alone(tmp_path):
    rows = aggregate(runs(tmp_path, {"method": "zero-shot"}))
    assert draw_curves(rows, tmp_path / "f.svg").read_text().startswith("<?xml")


def test_figures_that_cannot_be_drawn(tmp_path):
    rows = aggregate(runs(tmp_path, {}))
    with pytest.raises(UserError, match=r"cannot draw .*f\.txt; a figure ends in \.png"):
        draw_curves(rows, tmp_path / "f.txt")
    with pytest.raises(UserError, match="there is nothing to draw"):
        draw_curves([], tmp_path / "f.png")


def test_a_group_with_the_name_of_a_task(tmp_path):
    found = runs(tmp_path, {"tasks": (("oak", "elm", 50.0), ("elm", "oak", 40.0))})
    row = aggregate(found)[0]
    assert {title: row.stat(key).mean for key, title in columns([row])} == {
        "elm (mean)": 50.0,
        "oak (mean)": 40.0,
        "oak (task 0)": 50.0,
        "elm (task 1)": 40.0,
    }


def test_a_mean_over_some_of_the_tasks_is_named_and_not_the_best(tmp_path):
    whole = record(tasks=(("oak", "", 80.0), ("elm", "", 40.0)), method="A")
    better = record(tasks=(("oak", "", 70.0), ("elm", "", 60.0)), method="B")
    part = record(tasks=(("oak", "", 95.0),), method="C")
    part["protocol"]["tasks"] = "task0"
    rows = aggregate([make_run(tmp_path, content) for content in (whole, better, part)])
    (table,) = task_tables(rows)
    best = {
        (cells[0].text, title)
        for cells in table.rows
        for title, cell in zip(table.head, cells, strict=True)
        if cell.best
    }
    assert best == {("B", "mean"), ("C (tasks task0)", "oak"), ("B", "elm")}
    (by_shots,) = shot_tables(rows)
    assert [cells[0].text for cells in by_shots.rows if cells[-1].best] == ["B"]


def test_validation_images_have_a_table_of_their_own(tmp_path):
    for name, split in (("a", "val"), ("b", "test")):
        write(tmp_path / name / "seed1", method=name)
        (tmp_path / name / "seed1" / "config.yaml").write_text(f"TEST: {{SPLIT: {split}}}")
    rows = aggregate(find_runs(tmp_path))
    assert [row.suite for row in rows] == ["Trees", "Trees, validation images"]
    assert not paired_differences(rows)
