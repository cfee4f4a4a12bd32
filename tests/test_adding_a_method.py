"""The method of docs/adding_a_method.md trains, as it stands on the page."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import softcpt
import train
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from tests.trainers._methods import preset

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/adding_a_method.md").read_text(encoding="utf-8")


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """The YAML of the page; its methods are registered."""
    (settings,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    for number, source in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.S)):
        assert len([line for line in source.splitlines() if line.strip()]) <= 40
        file = tmp_path / f"page_{number}.py"
        file.write_text(source)
        spec = importlib.util.spec_from_file_location(f"trainers.{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    path = tmp_path / "tiny_ep50.yaml"
    path.write_text(settings.replace("../../_base_", str(ROOT / "configs/_base_")))
    yield path
    TRAINER_REGISTRY._classes.pop("TaskShift")
    TRAINER_REGISTRY._classes.pop("AveragedCoOp")


def train_one(folder, trainer, config_file, **overrides):
    """The prompter of a method trained for two epochs at one shot."""
    run = softcpt.train_run(
        folder,
        trainer=trainer,
        config_file=config_file,
        dataset_config_file=ROOT / "configs/datasets/digits7.yaml",
        overrides={
            "DATASET.NUM_SHOTS": 1,
            "OPTIM.MAX_EPOCH": 2,
            "DATALOADER.NUM_WORKERS": 0,
            **overrides,
        },
        quiet=True,
    )
    return run.models()[0].prompter


def test_the_method_of_the_page_trains(config_file, tmp_path):
    (learned,) = train_one(tmp_path / "run", "TaskShift", config_file).parameters()
    assert len(learned) == 7 and learned.abs().max() > 0


def test_a_shift_is_not_carried_over_to_another_task(config_file, tmp_path):
    train_one(tmp_path / "run", "TaskShift", config_file, **{"DATASET.SUBSAMPLE_TASKS": "task0"})
    other = {"DATASET.SUBSAMPLE_TASKS": "task1", "MODEL.INIT_FROM": [str(tmp_path / "run")]}
    with pytest.raises(UserError, match="belongs to single classes or tasks"):
        train_one(tmp_path / "other", "TaskShift", config_file, **other)


def test_the_variation_of_coop_averages_its_context(config_file, tmp_path):
    overrides = {"DATASET.SUBSAMPLE_TASKS": "task0", "TRAINER.AVERAGEDCOOP.DECAY": 0.5}
    found = train_one(tmp_path / "run", "AveragedCoOp", config_file, **overrides)
    ctx, average = found.prompts.ctx, found.average
    assert not found.training and not torch.equal(ctx, average)
    assert torch.equal(found.make_prompts(None).prefix[0, 1:], average)


def test_the_tests_of_every_method_find_it(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CONFIGS", tmp_path)
    place = tmp_path / "trainers" / "TaskShift"
    place.mkdir(parents=True)
    config_file.rename(place / config_file.name)
    assert preset("TaskShift") == place / config_file.name
    with pytest.raises(AssertionError, match=r"TaskShifts has no .*comment.*--trainer TaskShifts"):
        preset("TaskShifts")
