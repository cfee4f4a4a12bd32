"""Damaged files of a run: every reader names the file, and raises nothing else."""

import json

import numpy as np
import pytest
import torch

from dassl.engine.checkpoints import checkpoint_file, load_strictly, read_checkpoint
from dassl.utils import UserError
from results.mistakes import find_mistakes
from results.predictions import BETWEEN, FILE, TYPES, read_predictions
from results.tasks_file import read_tasks
from results.training_curves import read_curves
from softcpt.run_folder import read_record
from tests._command_line import parse
from tests._records import record, write

PATHS = np.frombuffer(BETWEEN.join(("a.png", "b.png", "c.png")).encode(), dtype=np.uint8)
COLUMNS = {
    "task": np.zeros(3, int),
    "label": np.array([0, 1, 1]),
    "classes": np.array([[0, 1], [1, 0], [0, 1]]),
    "probabilities": np.full((3, 2), 0.5),
    "label_probability": np.full(3, 0.5),
}
TASKS = [{"name": "kind of tree", "classnames": ["oak", "elm"]}]


def write_predictions(folder, **changed):
    columns = {name: column.astype(TYPES[name]) for name, column in COLUMNS.items()}
    np.savez(folder / FILE, **{"paths": PATHS, **columns, **changed})


def test_predictions_that_are_fine(tmp_path):
    write_predictions(tmp_path)
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": TASKS}))
    assert find_mistakes(tmp_path)[0].wrong == 1


def test_predictions_of_a_diverged_run_are_read(tmp_path, capsys):
    folder = write(tmp_path / "seed1")
    names = ("probabilities", "label_probability")
    diverged = {name: np.full_like(COLUMNS[name], np.nan) for name in names}
    write_predictions(folder, **diverged)
    (folder / "tasks.json").write_text(json.dumps({"tasks": TASKS}))
    code, _, err = parse(capsys, tmp_path, "--format", "html")
    assert code == 0, err
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label", np.array([0, 1])),
        ("label", np.array(["0", "1", "1"])),
        ("label", np.array([0, 1, -1])),
        ("label", np.array(3)),
        ("classes", np.array([0, 1, 1])),
        ("classes", np.zeros((3, 2))),
        ("probabilities", np.full((3, 1), 0.5)),
        ("label_probability", np.full(3, -0.5)),
    ],
)
def test_columns_of_predictions(tmp_path, name, value):
    write_predictions(tmp_path, **{name: value})
    with pytest.raises(UserError, match=f"{FILE} is damaged .{name}"):
        read_predictions(tmp_path)


def test_a_path_that_is_no_text_is_reported(tmp_path, capsys):
    folder = write(tmp_path / "seed1")
    write_predictions(folder, paths=np.frombuffer(b"a\xc0.png\0b\xc0.png\0c\xc0.png", np.uint8))
    code, _, err = parse(capsys, tmp_path, "--format", "html")
    assert code == 0, err
    assert "\\udcc0.png" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_predictions_of_another_run(tmp_path):
    write_predictions(tmp_path, label=np.array([0, 9, 1]))
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": TASKS}))
    with pytest.raises(UserError, match=f"{FILE} and .*tasks.json are not of one run"):
        find_mistakes(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3),
        ("classnames", "oak"),
        ("classnames", [None]),
        ("kind", 3),
        ("kind", {"name": "none such"}),
        ("templates", 3),
        ("another", 3),
    ],
)
def test_words_of_tasks(tmp_path, key, value):
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": [{**TASKS[0], key: value}]}))
    with pytest.raises(UserError, match=r"tasks\.json"):
        read_tasks(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": 3},
        {"state_dict": {"weight": None}},
        {"state_dict": {}, "facts": "none"},
        [torch.zeros(3)],
    ],
)
def test_contents_of_checkpoints(tmp_path, content):
    path = tmp_path / "model.pth.tar-2"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"model\.pth\.tar-2"):
        read_checkpoint(path)


def test_a_changed_number_of_a_checkpoint(tmp_path):
    path = tmp_path / "model.pth.tar-2"
    torch.save({"state_dict": {"weight": torch.full((9,), 0.5)}}, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x00\x00\x00\x3f", b"\x00\x00\x80\x3f", 1))
    with pytest.raises(UserError, match=r"model\.pth\.tar-2: .*has changed since"):
        read_checkpoint(path)


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="newer torch")
def test_a_checkpoint_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        state = {"weight": torch.ones(9), "empty": torch.zeros(0)}
        torch.save({"state_dict": state}, tmp_path / "model.pth.tar-2")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(tmp_path / "model.pth.tar-2").weights["weight"].sum() == 9


@pytest.mark.parametrize("kind", [torch.complex64, torch.long])
def test_numbers_of_another_kind(kind):
    model = torch.nn.Linear(2, 1, bias=False)
    with pytest.raises(UserError, match=f"file.pt .*weight holds {kind}"):
        load_strictly(model, {"weight": torch.zeros(1, 2, dtype=kind)}, "file.pt")


def test_the_name_of_the_last_checkpoint(tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match=f"{tmp_path / 'checkpoint'} is damaged"):
        checkpoint_file(tmp_path, None)


def test_curves_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1").symlink_to("nowhere")
    assert read_curves(tmp_path) == {}
    assert "no curve from" in (err := capsys.readouterr().err) and "tfevents.1" in err


def test_a_record_is_checked_before_its_model_is_built(tmp_path):
    (tmp_path / "config.yaml").touch()
    content = {**record(), "suite": {"value": "much", "groups": {}}}
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"results\.json: suite\.value"):
        read_record(tmp_path, None)
