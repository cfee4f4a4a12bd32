"""Runs on the toy suite that the tests of this folder share; the suite is gone when they load."""

import io
from unittest import mock

import pytest

import softcpt
import train
from dassl.data.datasets import DATASET_REGISTRY
from tests.conftest import COUNTS, TASKS, toy_args, toy_class
from tests.trainers._methods import optimizer, options

SEARCH = ("TRAINER.TIP.ALPHA_STEPS", 3, "TRAINER.TIP.BETA_STEPS", 3)


@pytest.fixture
def command(request, capsys, monkeypatch):
    """``command(*words, stdin="")``: exit code, stdout and stderr of the module's PROGRAM."""

    def go(*words, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = request.module.PROGRAM.command([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return go


@pytest.fixture(scope="session")
def runs(toy_folder, tmp_path_factory):
    """``runs(method, KEY, VALUE, ...)``: the folder of a run of one epoch, trained once."""
    folders = {}

    def go(method, *opts):
        key = (method, *opts)
        if key not in folders:
            folder = tmp_path_factory.mktemp(method) / "run"
            own = [*options(), *optimizer(method), *(SEARCH if method == "TipAdapter" else ())]
            with mock.patch.dict(DATASET_REGISTRY._classes):  # a module may have registered it too
                DATASET_REGISTRY.register(force=True)(toy_class("Toy", toy_folder))
                train.main(toy_args(method, *own, "OPTIM.MAX_EPOCH", 1, *opts, output=folder))
            folders[key] = folder
        return folders[key]

    return go


@pytest.fixture(scope="session")
def loaded(runs):
    """``loaded(method)``: the loaded run of a method."""
    found = {}

    def go(method):
        if method not in found:
            found[method] = softcpt.load_run(runs(method))
        return found[method]

    return go


@pytest.fixture(scope="session")
def held_out(toy_folder):
    """``held_out(task)``: paths and labels of a toy task's test images."""

    def go(task):
        first = COUNTS["train_x"] + COUNTS["val"]
        return [
            (str(toy_folder / f"{task}_{label}_{i}.png"), label)
            for label in range(len(TASKS[task].classnames))
            for i in range(first, first + COUNTS["test"])
        ]

    return go
