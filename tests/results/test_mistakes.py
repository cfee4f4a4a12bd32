"""What a report shows of the mistakes of a run: invented predictions, images on the disk or not."""

import json

import numpy as np
import pytest
from PIL import Image

import parse_test_res
from dassl.metrics.calibration import reliability
from results import run_pages
from results.calibration import mean_calibration
from results.mistakes import BLOCK, WHOLE_MATRIX, find_mistakes
from results.predictions import BETWEEN, FILE, TYPES
from tests._records import write


def predict(folder, classes, label, predicted, probability, paths=None, folders=("images",)):
    """A run of one task with these predictions; ``classes`` is their number."""
    write(folder, tasks=(("kind of tree", "", 50.0),), seed=1)
    names = [f"tree {i}" for i in range(classes)]
    task = {"name": "kind of tree", "classnames": names, "templates": ["a {}."]}
    (folder / "tasks.json").write_text(json.dumps({"tasks": [task]}))
    paths = paths or [f"{i}.png" for i in range(len(label))]
    right = np.array(label) == np.array(predicted)
    columns = {
        "task": np.zeros(len(label)),
        "label": label,
        "classes": np.array(predicted)[:, None],
        "probabilities": np.array(probability)[:, None],
        "label_probability": np.where(right, probability, 0.01),
    }
    texts = {"paths": paths, **({"folders": folders} if folders else {})}
    blobs = {k: np.frombuffer(BETWEEN.join(v).encode(), dtype=np.uint8) for k, v in texts.items()}
    typed = {name: np.asarray(columns[name]).astype(kind) for name, kind in TYPES.items()}
    np.savez_compressed(folder / FILE, **typed, **blobs)


@pytest.fixture
def page(tmp_path, capsys):
    """``page(*flags)``: the text of the report over tmp_path."""

    def go(*flags):
        words = [str(tmp_path), "--format", "html", "--out", str(tmp_path / "r.html"), *flags]
        assert parse_test_res.command(words) == 0
        capsys.readouterr()
        return (tmp_path / "r.html").read_text()

    return go


def test_many_classes_show_the_most_confused(tmp_path):
    classes = WHOLE_MATRIX + 70
    label = [*range(classes), *[0] * 5]
    predicted = [*range(1, classes), 0, *[99] * 5]  # all wrong; tree 0 is mostly taken for tree 99
    predict(tmp_path / "run", classes, label, predicted, [0.5] * len(label))
    (task,) = find_mistakes(tmp_path / "run")
    assert not task.matrix.whole and len(task.matrix.names) == BLOCK
    first, last = task.matrix.names.index("tree 0"), task.matrix.names.index("tree 99")
    assert task.matrix.counts[first][last] == 5
    assert task.confusions[0] == ("tree 0", "tree 99", 5)
    assert len(task.classes) == classes and all(one.correct == 0 for one in task.classes)


def test_nothing_is_wrong(tmp_path, page):
    predict(tmp_path / "run", 2, [0, 1], [0, 1], [0.9, 0.9])
    (task,) = find_mistakes(tmp_path / "run")
    assert task.matrix is None and task.wrong == 0
    assert "0 of 2 images wrong" in page() and "Confusion matrix</h4>" not in page()


def test_images_are_found_below_the_root(tmp_path, page):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (600, 400), "red").save(root / "images" / "0.png")
    (root / "images" / "1.png").write_bytes(b"no image")
    predict(tmp_path / "run", 2, [0, 1, 0], [1, 0, 1], [0.9, 0.8, 0.7])
    text = page("--root", str(root))
    assert text.count("data:image/webp;base64,") == 1
    assert "not on this machine" in text and "1.png: tree 1 → tree 0, 80" in text
    (tmp_path / "run" / "config.yaml").write_text(f"DATASET: {{ROOT: {root}}}\n")
    assert page().count("data:image/webp;base64,") == 1


def test_images_of_a_run_without_their_folders(tmp_path, page):
    predict(tmp_path / "run", 2, [0, 1], [1, 1], [0.9, 0.8], folders=None)
    text = page()
    assert "did not record its image folders" in text and "0.png: tree 0 → tree 1, 90" in text


def test_reliability_has_the_bins_that_hold_images():
    bins = reliability(np.array([0.1, 0.11, 1.0, 1.0]), np.array([True, False, True, False]))
    assert [(one.images, one.accuracy) for one in bins] == [(0.5, 0.5), (0.5, 0.5)]
    assert [one.probability for one in bins] == pytest.approx([0.105, 1.0])


def test_columns_of_every_table(tmp_path, capsys):
    for seed, probability in ((1, 0.9), (2, 0.7)):
        folder = tmp_path / f"seed{seed}"
        predict(folder, 2, [0, 1], [0, 0], [probability] * 2)
        write(folder, tasks=(("kind of tree", "", 50.0),), seed=seed)
    eces, _ = zip(*(mean_calibration(tmp_path / f"seed{s}") for s in (1, 2)), strict=True)
    assert eces == pytest.approx([40, 20], abs=0.1)  # half are right
    for flag in ("--table", "--format"):
        assert parse_test_res.command([str(tmp_path), flag, "md", "--columns", "nll,ece"]) == 0
        heads = [x for x in capsys.readouterr().out.splitlines() if x.startswith("| method |")]
        assert heads and all("NLL" in x and "ECE" in x and "MB" not in x for x in heads)
    assert parse_test_res.command([str(tmp_path), "--table", "md", "--columns", "ece"]) == 0
    assert "30.0 ± 10.0" in capsys.readouterr().out
    assert parse_test_res.command([str(tmp_path), "--table", "md", "--columns", "none"]) == 0
    assert "learned" not in capsys.readouterr().out
    assert parse_test_res.command([str(tmp_path), "--table", "md", "--columns", "eec"]) == 2
    assert "'eec'" in capsys.readouterr().err


@pytest.mark.parametrize("name", [FILE, "tasks.json"])
def test_damaged_files(name, tmp_path, capsys):
    predict(tmp_path / "run", 2, [0, 1], [1, 0], [0.9, 0.8])
    (tmp_path / "run" / name).write_text('{"a": 1}')
    assert parse_test_res.command([str(tmp_path), "--format", "html"]) == 2
    err = capsys.readouterr().err
    assert name in err and err.count("\n") == 1 and not (tmp_path / "report.html").exists()


def test_the_inspected_run_is_shown_wherever_it_is_in_the_report(tmp_path, page, monkeypatch):
    predict(tmp_path / "run", 2, [0, 1], [1, 1], [0.9, 0.8])
    monkeypatch.setattr(run_pages, "DRAWN", 0)
    assert "Confusion matrix</h4>" in page()
