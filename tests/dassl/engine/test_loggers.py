"""LOGGERS: the curves of a training in TensorBoard, a CSV and wandb."""

import csv
import importlib.util
import struct

import pytest

from dassl.engine.loggers import CsvLogger, TensorBoardLogger, _wandb_id, check_loggers
from dassl.utils import UserError
from results.training_curves import read_curves
from trainers.mtcoop_hard import MTCoOpHard

CSV = ("LOGGERS", "('csv',)", "TRAIN.PRINT_FREQ", 1)


def points(path):
    with path.open(newline="") as file:
        return [
            (row["name"], int(row["step"]), float(row["value"])) for row in csv.DictReader(file)
        ]


def test_a_csv_holds_every_point_and_the_report_reads_it(run, tmp_path):
    content = run("MTCoOpHard", *CSV)
    folder = tmp_path / "run"
    found = points(folder / "scalars.csv")
    assert [p[1] for p in found if p[0] == "train/loss"] == list(range(8))
    assert ("test/overall_metric", 1, pytest.approx(content["suite"]["value"])) in found
    for task in content["tasks"]:
        assert (f"test/task{task['id']} {task['name']}", 1, pytest.approx(task["value"])) in found
    assert not (folder / "tensorboard").exists()
    losses = [(step, value) for name, step, value in found if name == "train/loss"]
    assert read_curves(folder)["loss"][""] == losses


def test_tasks_that_train_separately_have_their_own(run, tmp_path):
    run("CoOp", "LOGGERS", "('csv','tensorboard')", "OPTIM.MAX_EPOCH", 1)
    for t in range(3):
        assert points(tmp_path / "run" / f"task{t}" / "scalars.csv")
        assert [*(tmp_path / "run" / f"task{t}" / "tensorboard").iterdir()]


def stop_in_second_epoch(monkeypatch):
    """Interrupts the training in the second batch of its second epoch."""
    step = MTCoOpHard.train_step

    def stopping(self, batch, where):
        if (where.epoch, where.batch_idx) == (1, 2):
            raise KeyboardInterrupt
        return step(self, batch, where)

    monkeypatch.setattr(MTCoOpHard, "train_step", stopping)


def test_a_resumed_run_writes_no_point_twice(run, tmp_path, monkeypatch):
    run("MTCoOpHard", *CSV, output=tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in_second_epoch(patch)
        run("MTCoOpHard", *CSV, output=tmp_path / "stopped")
    path = tmp_path / "stopped" / "scalars.csv"
    assert max(step for name, step, _ in points(path) if name == "train/loss") == 5
    with path.open("a") as file:
        file.write("train/loss,6,0.1")  # a line that was being written
    run("MTCoOpHard", *CSV, output=tmp_path / "stopped")
    assert points(path) == points(tmp_path / "whole" / "scalars.csv")


def test_a_file_of_something_else_is_started_anew(tmp_path):
    path = tmp_path / "scalars.csv"
    path.write_text("a,b\n1,2\n")
    log = CsvLogger(path)
    log.add("x", 0.5, 1)
    log.close()
    assert points(path) == [("x", 1, 0.5)]


def test_an_event_that_does_not_fit_on_the_disk_is_an_error(tmp_path):
    """A limit on the size of files stands for a full disk: it too takes a part of the event."""
    resource = pytest.importorskip("resource")  # not on Windows
    log = TensorBoardLogger(tmp_path)
    (path,) = (tmp_path / "tensorboard").iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        with pytest.raises(OSError):
            log.add("train/loss", 0.5, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.close()


def test_loggers_do_not_change_what_a_run_is(run, tmp_path):
    first = run("MTCoOpHard", "LOGGERS", "('tensorboard',)")
    again = run("MTCoOpHard", *CSV)  # complete, so nothing is done
    assert first["hashes"] == again["hashes"]


def test_names_that_cannot_be_used(cli, monkeypatch):
    code, _, err = cli("LOGGERS", "('csvs',)")
    assert code == 2 and "LOGGERS" in err and "wandb" in err
    with pytest.raises(UserError, match="twice"):
        check_loggers(("csv", "csv"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        check_loggers(("wandb",))


def wandb_records(path):
    """The records of an offline wandb file: blocks of LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2 as proto

    content, place, parts = path.read_bytes(), 7, []  # after the header of the file
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # too short for a header: padding
            place += 32768 - place % 32768
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts.append(content[place + 7 : place + 7 + size])
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = proto.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def test_the_wandb_run_belongs_to_the_folder_and_not_to_its_path(tmp_path):
    logged = tmp_path / "run" / "wandb" / "logged.csv"
    logged.parent.mkdir(parents=True)
    logged.write_text("name,step,value\n")  # of a run whose id is not known
    first = _wandb_id(tmp_path / "run" / "wandb" / "run_id")
    assert not logged.exists()
    (tmp_path / "run").rename(tmp_path / "moved")
    assert _wandb_id(tmp_path / "moved" / "wandb" / "run_id") == first
    assert _wandb_id(tmp_path / "run" / "wandb" / "run_id") != first


@pytest.mark.slow
def test_wandb_offline(run, tmp_path, monkeypatch):
    """The real package writes a run; resumed, the folder has the same run without points twice."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    own = ("LOGGERS", "('wandb','csv')", "TRAIN.PRINT_FREQ", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in_second_epoch(patch)
        run("MTCoOpHard", *own)
    run("MTCoOpHard", *own)
    folder = tmp_path / "run"
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len({path.stem for path in files}) == 1  # the same run
    found = []
    for record in (record for path in files for record in wandb_records(path)):
        items = {"/".join([i.key, *i.nested_key]): i.value_json for i in record.history.item}
        items = {key.strip("/"): value for key, value in items.items()}
        if "train/loss" in items:
            found.append((int(items["batch"]), float(items["train/loss"])))
    losses = [point[1:] for point in points(folder / "scalars.csv") if point[0] == "train/loss"]
    assert found == losses and len(losses) == 8
