"""The method of docs/adding_a_method.md trains, as it stands on the page."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import softcpt
import train
from dassl.engine import TRAINER_REGISTRY
from tests.trainers._methods import preset

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/adding_a_method.md").read_text(encoding="utf-8")


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """The YAML of the page; its method is registered."""
    source, settings = (
        re.search(rf"```{language}\n(.*?)```", PAGE, re.S)[1] for language in ("python", "yaml")
    )
    assert len([line for line in source.splitlines() if line.strip()]) <= 40
    (tmp_path / "task_shift.py").write_text(source)
    spec = importlib.util.spec_from_file_location("trainers.task_shift", tmp_path / "task_shift.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    path = tmp_path / "tiny_ep50.yaml"
    path.write_text(settings.replace("../../_base_", str(ROOT / "configs/_base_")))
    yield path
    TRAINER_REGISTRY._classes.pop("TaskShift")


def test_the_method_of_the_page_trains(config_file, tmp_path):
    run = softcpt.train_run(
        tmp_path / "run",
        trainer="TaskShift",
        config_file=config_file,
        dataset_config_file=ROOT / "configs/datasets/digits7.yaml",
        overrides={"DATASET.NUM_SHOTS": 1, "OPTIM.MAX_EPOCH": 2, "DATALOADER.NUM_WORKERS": 0},
        quiet=True,
    )
    (learned,) = (tensor for tensor in run.models()[0].parameters() if tensor.requires_grad)
    assert len(learned) == 7 and learned.abs().max() > 0


def test_the_tests_of_every_method_find_it(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CONFIGS", tmp_path)
    place = tmp_path / "trainers" / "TaskShift"
    place.mkdir(parents=True)
    config_file.rename(place / config_file.name)
    assert preset("TaskShift") == place / config_file.name
    with pytest.raises(AssertionError, match=r"TaskShifts has no .*comment.*--trainer TaskShifts"):
        preset("TaskShifts")
