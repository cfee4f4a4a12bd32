"""predict.py: what it classifies, what it writes, and what it refuses."""

import csv
import io
import json
import os
import shutil

import pytest
from PIL import Image

import datasets.digit_captions  # noqa: F401  (registered before runs() takes its datasets back)
import predict
from dassl.utils import UserError
from softcpt import export_run, load_run
from softcpt.image_paths import find_images
from tests.conftest import TASKS

PROGRAM = predict


@pytest.fixture
def photos(tmp_path):
    """A folder with images, one of them in a folder below, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "more/c.png"):
        Image.new("RGB", (40, 32), "red").save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_the_test_images_of_a_run(command, runs, held_out):
    """The whole suite: the recorded number of images classified right, task by task."""
    folder = runs("MTCoOp")
    record = json.loads((folder / "results.json").read_text())
    for t, task in enumerate(record["tasks"]):
        images = dict(held_out(t))
        code, out, _ = command(folder, *images, "--task", t, "--format", "jsonl")
        found = {row["image"]: row["classes"][0]["label"] for row in rows_of(out)}
        right = sum(found[path] == TASKS[t].classnames[images[path]] for path in images)
        assert code == 0 and right == task["correct"]


def test_folders_patterns_and_lists(command, runs, photos):
    names = ["a.jpg", "b.png", "more/c.png"]
    table = photos / "list.csv"
    table.write_text("id,path\n" + "".join(f"1,{name}\n" for name in names))
    bare = photos / "bare.csv"
    bare.write_text("".join(f"{name}\n" for name in names))
    listed = "".join(f"{photos / name}\n" for name in names)
    ways = [(photos,), (f"{photos}/**/*",), (table,), (bare,), [photos / name for name in names]]
    for words in (*ways, ("-",)):
        code, out, err = command(
            runs("CoOp"), *words, "--task", 0, "--format", "jsonl", stdin=listed
        )
        assert code == 0, err
        assert sorted(row["image"] for row in rows_of(out)) == [str(photos / n) for n in names]


def test_hidden_folders_are_counted(photos, capsys):
    (photos / ".net").mkdir()
    shutil.copy(photos / "b.png", photos / ".net" / "d.png")
    assert len(find_images([str(photos)])) == 3
    assert "not read: 1 image in hidden folders" in (err := capsys.readouterr().err)
    assert ".net/d.png" in err


def test_csv_and_table(command, runs, photos, tmp_path):
    out_file = tmp_path / "found.csv"
    code, out, _ = command(runs("CoOp"), photos, "--top", 3, "--out", out_file)
    rows = list(csv.DictReader(out_file.open()))
    assert code == 0 and out == "" and len(rows) == 9
    assert [row["task"] for row in rows[:3]] == [task.name for task in TASKS]
    assert sum(float(rows[0][f"probability{n}"]) for n in ("", "_2", "_3")) == pytest.approx(1)
    assert rows[1]["label_2"] and not rows[1]["label_3"]  # a task of two classes
    _, table, _ = command(runs("CoOp"), photos, "--task", "stripes", "--top", 2)
    lines = table.splitlines()
    assert lines[0].split() == ["image", "%", "class", "%", "class", "2"]
    assert len(lines) == 4 and lines[1].count("%") == 2
    assert lines[1].startswith(str(photos / "a.jpg"))
    assert lines[0].index("class") == lines[1].index("%") + 2  # titles stand above their columns


def test_images_that_cannot_be_read(command, runs, photos):
    (photos / "z.png").write_bytes(b"no image")
    code, out, err = command(runs("CoOp"), photos, "--task", 0, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1 and [bool(row["label"]) for row in rows] == [True, True, False, True]
    assert "z.png" in rows[2]["error"] and "z.png" in err and "1 of 4" in err
    missing = f"{photos}/a.jpg\n{photos}/gone.jpg\n"
    code, out, err = command(runs("CoOp"), "-", "--task", 0, stdin=missing)
    assert code == 1 and len(out.splitlines()) == 2 and "gone.jpg" in err


def test_other_names(command, runs, photos, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\nlarge dog\n\n", encoding="utf-8-sig")
    for given in (names, "cat, large dog"):
        words = ("--task", 2, "--task-name", "pet", "--classes", given, "--format", "jsonl")
        code, out, _ = command(runs("MTCoOp"), photos, *words, "--top", 9)
        labels = {one["label"] for one in rows_of(out)[0]["classes"]}
        assert code == 0 and labels == {"cat", "large dog"} and rows_of(out)[0]["task"] == "pet"


REFUSED = {
    "no run": (("gone", "{photos}"), "gone"),
    "no image": (("{run}", "{photos}/gone.jpg"), "gone.jpg"),
    "a folder without images": (("{run}", "{empty}"), "empty"),
    "a pattern without images": (("{run}", "{photos}/*.txt"), "*.txt"),
    "an empty list": (("{run}", "-"), "standard input"),
    "an unknown task": (("{run}", "{photos}", "--task", "flower"), "stripes"),
    "an unknown format": (("{run}", "{photos}", "--format", "xml"), "jsonl"),
    "top 0": (("{run}", "{photos}", "--top", "0"), "--top"),
    "no classes": (("{run}", "{photos}", "--task", "0", "--classes", ", ,"), "--classes"),
    "classes without a task": (("{run}", "{photos}", "--classes", "a, b"), "--task"),
    "equal classes": (("{run}", "{photos}", "--task", "0", "--classes", "a, A"), "'A'"),
    "a device": (("{run}", "{photos}", "--device", "tpu"), "cuda"),
    "an unknown user": (("{run}", "~nobody-of-this-name/a.jpg"), "~nobody-of-this-name"),
    "negative workers": (("{run}", "{photos}", "--workers", "-1"), "-1"),
    "a negative batch": (("{run}", "{photos}", "--batch-size", "-1"), "-1"),
    "new names for fixed columns": (
        ("{fixed}", "{photos}", "--task", "0", "--classes", "a, b, c"),
        "ProtoNet",
    ),
}


def test_more_names_than_a_path_has_letters(command, runs, photos):
    names = [f"class number {i}" for i in range(40)]
    words = ("--task", 0, "--classes", ", ".join(names), "--format", "jsonl", "--top", 40)
    code, out, err = command(runs("CoOp"), photos / "b.png", *words)
    assert code == 0, err
    assert {one["label"] for one in rows_of(out)[0]["classes"]} == set(names)


def test_a_file_name_that_is_no_text_is_written(command, runs, photos, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    shutil.copy(photos / "b.png", path)
    code, _, err = command(runs("CoOp"), path, "--task", 0, "--out", tmp_path / "found.jsonl")
    assert code == 0, err
    assert json.loads((tmp_path / "found.jsonl").read_text())["image"] == path


def test_a_folder_is_no_output(command, runs, photos, tmp_path):
    code, out, err = command(runs("CoOp"), photos, "--out", tmp_path)
    assert code == 2 and out == "" and str(tmp_path) in err


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes(case, command, runs, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"run": runs("CoOp"), "fixed": runs("ProtoNet"), "photos": photos}
    words, part = REFUSED[case]
    filled = [word.format(**places, empty=tmp_path / "empty") for word in words]
    out_file = tmp_path / "found.csv"
    code, out, err = command(*filled, "--out", out_file)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert part in err and not out_file.exists()


def test_a_run_on_captions_has_no_classes(command, runs, photos, tmp_path):
    folder = runs("CoOp", "DATASET.NAME", "DigitCaptions", "DATASET.NUM_SHOTS", "1")
    code, _, err = command(folder, photos / "b.png")
    assert code == 2 and "pairs of images and texts" in err, err
    with pytest.raises(UserError, match="pairs of images and texts"):
        export_run(load_run(folder), tmp_path / "out", "prompts")
