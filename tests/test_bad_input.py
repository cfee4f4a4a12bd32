"""Mistakes through the command line: one message, exit code 2, no traceback."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image

import train
from clip import backbones
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.tasks import Task
from dassl.utils import UserError
from datasets._core.base import FewShotDataset
from tests._command_line import one_line, status, stopping
from tests.conftest import TASKS
from trainers.coop import CoOp

ROOT = Path(__file__).parents[1]
NOISE = random.Random(0).randbytes(500)


# ---------------------------------------------------------------- names, values, files

MISTAKES = [
    ({"trainer": "CoOps"}, (), "no trainer named 'CoOps'; did you mean CoOp? known: CLIPAdapter, "),
    ({"dataset": "Toi"}, (), "no dataset named 'Toi'; did you mean Toy? known: "),
    ({"backbone": "RN5"}, (), "no backbone named 'RN5'; did you mean RN50?"),
    ({"backbone": "gone.pt"}, (), "no weight file at gone.pt"),
    ({}, ("OPTIM.LRR", "1"), "no config key named 'OPTIM.LRR'; did you mean OPTIM.LR?"),
    ({}, ("OPTIM.LEARNING_RATE", "1"), "'OPTIM.LEARNING_RATE'; did you mean OPTIM.LR?"),
    ({"dataset": ""}, (), "no dataset chosen: give one with --dataset-config-file "),
    ({}, ("--sed", "1"), "no flag named '--sed'; did you mean --seed?"),
    ({}, ("OPTIM.MAX_EPOCH",), "overrides come in pairs KEY VALUE, but 'OPTIM.MAX_EPOCH'"),
    ({}, ("OPTIM.MAX_EPOCH", "two"), "OPTIM.MAX_EPOCH takes a whole number such as 2; got 'two'"),
    ({}, ("OPTIM.MAX_EPOCH", "2.5"), "OPTIM.MAX_EPOCH takes a whole number such as 2; got 2.5"),
    ({}, ("TRAINER.COOP.CSC", "maybe"), "TRAINER.COOP.CSC takes True or False; got 'maybe'"),
    (
        {},
        ("TRAINER.MTCOOP.N_CTX", "4"),
        "TRAINER.MTCOOP.N_CTX has no effect with CoOp, which reads TRAINER.COOP; did you mean "
        "TRAINER.COOP.N_CTX?",
    ),
    ({}, ("OPTIM.MAX_EPOCH", "-1"), "OPTIM.MAX_EPOCH takes a whole number of at least 0; got -1"),
    (
        {},
        ("DATALOADER.TEST.BATCH_SIZE", "99999999999999999999999"),
        "TEST.BATCH_SIZE takes a whole number of at least 1 and at most",
    ),
    ({}, ("INPUT.PIXEL_MEAN", "['a', 'b', 'c']"), "INPUT.PIXEL_MEAN takes a list"),
    ({}, ("--resume", "gone"), "--resume names gone, which holds no resume.pt"),
    ({}, ("OPTIM.LR", "-0.1"), "OPTIM.LR takes a number of at least 0; got -0.1"),
    ({}, ("OPTIM.LR", "float('nan')"), "OPTIM.LR takes a number such as 0.002"),
    ({}, ("TRAIN.PRINT_FREQ", "0"), "TRAIN.PRINT_FREQ takes a whole number of at least 1; got 0"),
    (
        {},
        ("DATALOADER.TRAIN_X.BATCH_SIZE", "0"),
        "TRAIN_X.BATCH_SIZE takes a whole number",
    ),
    ({}, ("DATASET.NUM_SHOTS", "0"), "DATASET.NUM_SHOTS takes a whole number of at least -1"),
    ({}, ("SEED", "99999999999999999999"), "SEED takes a whole number of at least -1 and at most"),
    ({}, ("--seed", "one"), "argument --seed: invalid int value: 'one'; --help shows"),
    (
        {},
        ("OPTIM.NAME", "sdg"),
        "OPTIM.NAME takes one of sgd, adam, adamw; got 'sdg'",
    ),
    ({}, ("OPTIM.LR_SCHEDULER", "cosin"), "did you mean cosine?"),
    ({}, ("INPUT.TRANSFORMS", "('flip',)"), "no transform named 'flip'"),
    ({}, ("INPUT.SIZE", "(224, 224)"), "takes images of (32, 32), but INPUT.SIZE is (224, 224)"),
    ({}, ("TRAINER.COOP.CTX_INIT", "_ "), "'_ ' (CTX_INIT) has no words to start a context with"),
    ({}, ("TRAINER.COOP.N_CTX", "99"), "the text tower takes 77; shorten the name or the context"),
    ({}, ("TRAINER.COOP.CLASS_TOKEN_POSITION", "back"), "takes one of end, middle, front"),
    ({}, ("TEST.FINAL_MODEL", "best"), "got 'best'; did you mean best_val"),
    ({}, ("--config-file", "configs/gone.yaml"), "there is no configuration file configs/gone"),
    ({}, ("--protocol", "fewshot"), "no protocol named 'fewshot'; did you mean few_shot?"),
    ({"dataset": "Digits7"}, ("DATASET.SUBSAMPLE_TASKS", "task9"), "task9"),
    ({}, ("--eval-only", "--model-dir", "gone"), "there is no folder gone for --model-dir"),
]


def test_a_dataset_file_without_keys_below_dataset(cli, tmp_path):
    file = tmp_path / "five.yaml"
    file.write_text("DATASET: 5\n")
    code, _, err = cli("--dataset-config-file", file, dataset="", output=tmp_path / "run")
    assert code == 2 and f"{file}: DATASET holds the keys" in err and "got 5" in err


@pytest.mark.parametrize(("how", "words", "message"), MISTAKES)
def test_a_mistake_is_named_before_the_first_batch(cli, tmp_path, how, words, message):
    code, out, err = cli(*words, **how, output=tmp_path / "new" / "run")
    assert code == 2 and one_line(err) and message in err, err
    assert "epoch [" not in out and not (tmp_path / "new").exists()


def test_a_mistake_leaves_the_folder_usable(cli, tmp_path):
    assert cli("OPTIM.NAME", "sdg")[0] == 2
    assert cli()[0] == 0 and status(tmp_path / "run") == "complete"


def test_a_mistake_removes_nothing_but_its_own_files(cli, tmp_path):
    (tmp_path / "run" / "other").mkdir(parents=True)
    (tmp_path / "run" / "log.txt").write_text("mine")
    assert cli(backbone="RN5")[0] == 2
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["log.txt", "other"]
    assert (tmp_path / "run" / "log.txt").read_text() == "mine"
    assert cli()[0] == 0
    before = (tmp_path / "run" / "results.json").read_text()
    assert cli(backbone="RN5")[0] == 2
    assert (tmp_path / "run" / "results.json").read_text() == before


def test_a_mistake_in_a_suite_leaves_nothing(run, tmp_path, monkeypatch):
    def broken_image(self, batch, step):
        raise UserError("cannot decode the image")

    monkeypatch.setattr(CoOp, "train_step", broken_image)
    with pytest.raises(UserError, match="decode"):
        run("CoOp", output=tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_debug_shows_the_traceback(capsys):
    assert train.command(["--trainer", "CoOps", "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.splitlines()[-1].startswith("error: no trainer")


# ---------------------------------------------------------------- images


class Folders(FewShotDataset):
    """Two classes in folders."""

    dataset_dir = "pets"
    task_name = "kind of pet"


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """A data folder with a registered dataset ``Folders`` in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    DATASET_REGISTRY.register()(Folders)
    for name, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / "data" / "pets" / "images" / name).mkdir(parents=True)
        for i in range(10):
            path = tmp_path / "data" / "pets" / "images" / name / f"{i}.png"
            Image.new("RGB", (40, 40), colour).save(path)
    yield tmp_path / "data"
    DATASET_REGISTRY._classes.pop("Folders")


def test_data_folders(cli, pets, tmp_path):
    code, _, err = cli(dataset="Folders")
    assert code == 2 and one_line(err) and "Folders needs a data folder: give the one that" in err
    code, _, err = cli("--root", tmp_path / "nowhere", dataset="Folders")
    assert code == 2 and one_line(err) and f"no folder {tmp_path / 'nowhere' / 'pets'}" in err
    (pets / "pets" / "images" / "empty").mkdir()
    code, _, err = cli("--root", pets, dataset="Folders")
    assert code == 2 and one_line(err) and "images/empty has no images" in err
    (pets / "pets" / "images" / "empty").rmdir()
    assert cli("--root", pets, dataset="Folders")[0] == 0


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


DAMAGES = {
    "truncated": (cut, "cannot decode the image {}"),
    "empty": (lambda path: path.write_bytes(b""), "the image {} is empty (0 bytes)"),
    "text": (lambda path: path.write_text("not an image"), "cannot decode the image {}"),
    "gone": (lambda path: path.unlink(), "images: {}; put them back"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot read the image {}"),
}


@pytest.mark.parametrize(
    ("damage", "workers"), [*((damage, 0) for damage in DAMAGES), ("truncated", 2)]
)
def test_an_image_that_cannot_be_read_is_named(cli, pets, tmp_path, damage, workers):
    words = ("--root", pets, "DATALOADER.NUM_WORKERS", workers)
    assert cli(*words, "--no-train", dataset="Folders", output=tmp_path / "other")[0] == 0
    split = json.loads((pets / "pets" / "split_own_Folders.json").read_text())
    bad = pets / "pets" / "images" / split["train"][0][0]
    do, message = DAMAGES[damage]
    do(bad)
    code, _, err = cli(*words, dataset="Folders")
    name = bad.relative_to(pets / "pets" / "images") if damage == "gone" else bad
    assert code == 2 and one_line(err) and message.format(name) in err, err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["off", "test"])
def test_a_broken_test_image_is_found_before_the_training(cli, pets, tmp_path, mode):
    words = ("--root", pets, "FEATURES.MODE", mode, "FEATURES.DIR", tmp_path / "features")
    assert cli(*words, "--no-train", dataset="Folders", output=tmp_path / "other")[0] == 0
    split = json.loads((pets / "pets" / "split_own_Folders.json").read_text())
    bad = pets / "pets" / "images" / split["test"][0][0]
    content = bad.read_bytes()
    bad.write_text("not an image")
    code, out, err = cli(*words, dataset="Folders")
    assert code == 2 and one_line(err) and f"cannot decode the image {bad}" in err, err
    assert "epoch [" not in out
    bad.write_bytes(content)
    cut(bad)  # the header is whole: the test finds it, and needs no other training
    code, out, err = cli(*words, dataset="Folders")
    assert code == 2 and one_line(err) and f"cannot decode the image {bad}" in err and out, err
    alone = f"--eval-only --model-dir {tmp_path / 'run'} --load-epoch 2"
    assert alone in err
    bad.write_bytes(content)
    words = (*words, *alone.split())
    assert cli(*words, dataset="Folders", output=tmp_path / "alone")[0] == 0
    assert status(tmp_path / "alone") == "complete"


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def trained(cli, tmp_path):
    """A finished CoOp run on the first toy task; ``trained(*words)`` evaluates it."""
    assert cli(output=tmp_path / "trained")[0] == 0

    def evaluate(*words, folder=tmp_path / "trained", **how):
        return cli("--eval-only", "--model-dir", folder, "--load-epoch", "2", *words, **how)

    return evaluate


@pytest.mark.parametrize(
    ("how", "words", "message"),
    [
        (
            {"trainer": "MTCoOp"},
            (),
            "does not fit this trainer and its configuration: tasks.ctx is",
        ),
        ({}, ("TRAINER.COOP.N_CTX", "4"), "has shape (16, 64), here (4, 64)"),
        ({"backbone": "ViT-S-32/random"}, (), "has shape (16, 64), here (16, 384)"),
        ({}, ("--load-epoch", "9"), "model.pth.tar-9; "),
    ],
)
def test_checkpoints_of_something_else(trained, how, words, message):
    code, _, err = trained(*words, **how)
    assert code == 2 and one_line(err) and message in err, err
    assert trained()[0] == 0


def test_other_frozen_weights_of_the_same_shapes(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("clip.backbones.RANDOM_SEED", 1)
    backbones._cached.cache_clear()
    code, _, err = trained(output=tmp_path / "new")
    backbones._cached.cache_clear()
    assert code == 2 and one_line(err) and "was trained with another backbone" in err, err


def test_a_context_per_class_of_other_classes(cli, tmp_path, monkeypatch):
    csc = ("TRAINER.COOP.CSC", "True")
    assert cli(*csc, output=tmp_path / "csc")[0] == 0
    words = ("--eval-only", "--model-dir", tmp_path / "csc")
    code, _, err = cli(*csc, *words, "DATASET.SUBSAMPLE_TASKS", "task2", output=tmp_path / "a")
    assert code == 2 and one_line(err) and "has shape (3, 16, 64), here (4, 16, 64)" in err
    renamed = (Task("colour", ("green", "red", "blue")), *TASKS[1:])
    monkeypatch.setattr("tests.conftest.TASKS", renamed)
    code, _, err = cli(*csc, *words, output=tmp_path / "b")
    assert code == 2 and one_line(err) and "another set of names: ['red', 'grass green'," in err


def test_an_unfinished_training_is_not_evaluated_unawares(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(CoOp, "after_epoch", stopping(CoOp.after_epoch, KeyboardInterrupt))
    assert cli("TRAIN.CHECKPOINT_FREQ", "1")[0] == 130
    monkeypatch.undo()
    words = ("--eval-only", "--model-dir", tmp_path / "run")
    code, _, err = cli(*words, output=tmp_path / "new")
    assert code == 2 and one_line(err) and "is not complete (interrupted): give its command" in err
    assert cli(*words, "--load-epoch", "1", output=tmp_path / "new")[0] == 0


def test_a_broken_record_of_the_training(trained, tmp_path):
    file = tmp_path / "trained" / "results.json"
    file.write_text("[]")
    code, _, err = trained()
    assert code == 2 and one_line(err) and f"{file} must hold keys and values" in err


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02N.", NOISE])
def test_a_broken_checkpoint(trained, tmp_path, content):
    file = tmp_path / "trained" / "prompt_learner" / "model.pth.tar-2"
    file.write_bytes(content)
    code, _, err = trained()
    assert code == 2 and one_line(err) and f"{file}" in err, err
