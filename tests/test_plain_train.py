"""docs/plain_train.py learns what train.py learns."""

import importlib.util
from pathlib import Path

import pytest
import torch

import train
from dassl.utils import load_checkpoint

ROOT = Path(__file__).parents[1]
SHORT = ("DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "3")


@pytest.fixture
def plain_train():
    spec = importlib.util.spec_from_file_location("plain_train", ROOT / "docs" / "plain_train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_same_context_and_accuracy(plain_train, tmp_path):
    found = plain_train.main(*SHORT)
    flags = ["--trainer", "CoOp", "--seed", "1", "--quiet", "--output-dir", str(tmp_path)]
    flags += ["--config-file", str(ROOT / "configs/trainers/CoOp/tiny_ep50.yaml")]
    flags += ["--dataset-config-file", str(ROOT / "configs/datasets/digits7.yaml")]
    record = train.main(train.parse_args([*flags, *SHORT, "FEATURES.MODE", "off"]))
    assert [task["name"] for task in record["tasks"]] == list(found)
    for t, (task, (context, accuracy)) in enumerate(
        zip(record["tasks"], found.values(), strict=True)
    ):
        file = tmp_path / f"task{t}" / "prompt_learner" / "model.pth.tar-3"
        assert torch.equal(load_checkpoint(file)["state_dict"]["prompts.ctx"], context)
        assert 100 * task["correct"] / task["total"] == accuracy
