"""Figures: what they show, in which colours, and files that cannot be written."""

import itertools
import warnings
import xml.etree.ElementTree as ET

import pytest
from matplotlib import image

import parse_test_res
from dassl.utils import UserError
from results.aggregate import aggregate
from results.drawing import hatch_of, method_styles
from results.few_shot_curves import draw_curves
from results.figures import draw_gains, draw_similarity, draw_training
from results.line_labels import spread_out
from results.read import find_runs, make_run
from tests._records import record, write


@pytest.fixture
def tree(tmp_path):
    """Zero-shot and two methods with 1 and 4 shots and two seeds."""

    def tasks(value):
        return (("oak <b>", "", value), ("elm & ash", "", value + 10))

    write(tmp_path / "zs", method="zero-shot", tasks=tasks(50.0))
    for method, start in (("A", 60.0), ("B", 40.0)):
        for shots, seed in itertools.product((1, 4), (1, 2)):
            keys = dict(method=method, seed=seed, shots=shots)
            write(tmp_path / f"{method}{shots}{seed}", tasks=tasks(start + shots + seed), **keys)
    return tmp_path


def test_labels_keep_their_distance():
    """As close as possible to where they are wanted: pairs that touch stand around their mean."""
    assert spread_out([0.9, 0.1], [0.1, 0.1]) == pytest.approx([0.9, 0.1])
    assert spread_out([0.5, 0.5], [0.2, 0.2]) == pytest.approx([0.4, 0.6])
    assert spread_out([1.0, 1.0, 0.2], [0.1, 0.1, 0.1]) == pytest.approx([0.85, 0.95, 0.2])
    assert spread_out([0.0, 0.3, 0.35, 0.4], [0.1] * 4) == pytest.approx([0.05, 0.25, 0.35, 0.45])
    crowded = spread_out([0.5] * 20, [0.1] * 20)  # more than fit: above each other all the same
    assert all(b - a == pytest.approx(0.1) for a, b in itertools.pairwise(crowded))
    assert spread_out([], []) == []


def test_a_method_has_one_colour_in_all_figures(tree):
    rows = aggregate(find_runs(tree))
    styles = method_styles(rows)
    assert list(styles) == ["A", "B", "zero-shot"]
    assert styles["A"]["color"] != styles["B"]["color"] and "marker" not in styles["zero-shot"]
    assert hatch_of(styles["A"]) != hatch_of(styles["B"])
    for figure in (draw_curves(rows, tree / "c.svg"), draw_gains(rows, tree / "g.svg")):
        text = figure.read_text().lower()
        assert styles["A"]["color"].lower() in text and styles["B"]["color"].lower() in text


def test_one_number_of_shots_has_a_row_per_method(tree):
    rows = [row for row in aggregate(find_runs(tree)) if row.shots in (0, 4)]
    pixels = image.imread(draw_curves(rows, tree / "rows.png", dpi=50))
    assert pixels[..., :3].std() > 0.05
    alone = [row for row in rows if row.shots == 0]
    assert draw_curves(alone, tree / "alone.png", dpi=50, narrow=True).exists()


def test_pictures_as_pdf(tree, capsys):
    assert parse_test_res.command([str(tree), "--pictures", str(tree / "pdf"), "--pdf"]) == 0
    names = sorted(path.name for path in (tree / "pdf").iterdir())
    assert names == ["curves.pdf", "gains.pdf"]
    assert b"/FontFile2" in (tree / "pdf" / "curves.pdf").read_bytes()  # letters, not outlines
    assert parse_test_res.command([str(tree), "--table", "md", "--pdf"]) == 2
    assert "--pictures" in capsys.readouterr().err


def test_held_out_tasks_are_in_no_curve(tree, capsys):
    for path in tree.iterdir():
        write(path, name="leave_one_task_out", tasks=(("oak", "", 70.0),), seed=1)
    code = parse_test_res.command([str(tree), "--figure", str(tree / "f.png")])
    assert code == 2 and "held-out" in capsys.readouterr().err
    assert not (tree / "f.png").exists()


def test_gains_are_drawn(tree):
    rows = aggregate(find_runs(tree))
    pixels = image.imread(draw_gains(rows, tree / "gains.png", dpi=50))
    assert pixels.shape[0] > 60 and pixels[..., :3].std() > 0.05
    ET.parse(draw_gains(rows, tree / "gains.svg"))
    for i in range(7):  # too many for bars; they lack a task
        write(tree / f"more{i}", method=f"M{i}", tasks=(("oak <b>", "", 9.0),))
    pixels = image.imread(draw_gains(aggregate(find_runs(tree)), tree / "map.png", dpi=50))
    assert pixels[..., :3].std() > 0.05
    alone = aggregate([make_run(tree / "x", record())])
    with pytest.raises(UserError, match="no suite has both zero-shot and another method"):
        draw_gains(alone, tree / "none.png")


def test_narrow_gains_of_one_task_have_room_for_their_bars(tmp_path):
    for method, shots, value in (("zero-shot", 0, 50.0), ("A", 16, 60.0)):
        write(tmp_path / method, method=method, shots=shots, tasks=(("oak", "", value),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of axes without height
        draw_gains(aggregate(find_runs(tmp_path)), tmp_path / "gains.svg", narrow=True)


def test_training_and_similarity_are_drawn(tmp_path):
    curves = {"loss": {"task0": [(0, 1.0), (1, 0.5)], "task1": [(0, 2.0), (1, 0.7)]}}
    ET.parse(draw_training(curves, tmp_path / "t.svg"))
    with pytest.raises(UserError, match="no training curve"):
        draw_training({}, tmp_path / "t.svg")
    matrix = [[1.0, 0.2], [0.2, 1.0]]
    assert draw_similarity(matrix, ["a", "b"], tmp_path / "s.png").stat().st_size > 1000
    with pytest.raises(UserError, match=r"a figure ends in \.png"):
        draw_similarity(matrix, ["a", "b"], tmp_path / "s.doc")
