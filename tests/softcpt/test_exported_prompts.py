"""export.py --as prompts: what a run learned is loaded again, with its names and its results."""

import json
import shutil

import pytest
import torch
import yaml

import export
import softcpt
from dassl.utils import UserError
from softcpt import learned_parameters

PROGRAM = export


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp", "MTCoOp", "ProtoNet", "TipAdapter"])
def test_prompts_are_loaded_again(method, command, runs, loaded, held_out, tmp_path):
    folder, path = tmp_path / "prompts", held_out(0)[0][0]
    code, _, err = command(runs(method), folder, "--as", "prompts")
    assert code == 0, err
    again = softcpt.load_run(folder)
    assert torch.equal(again.logits(path), loaded(method).logits(path))
    card = (folder / "README.md").read_text()
    assert again.record["protocol"]["method"] in card and "stripes" in card
    front = yaml.safe_load(card.split("---")[1])
    values = [one["metrics"][0]["value"] for one in front["model-index"][0]["results"]]
    assert values == [task["value"] for task in again.record["tasks"]]
    files = {file.name for file in folder.iterdir()}
    assert files == {
        *("README.md", "config.yaml", "results.json", "tasks.json", "parameters.safetensors")
    }


def test_the_hub_reads_which_metric_it_is(loaded, monkeypatch):
    tasks = [{"name": x, "test": {"metric": x, "value": 50.0}} for x in ("mAP", "mean_acc")]
    monkeypatch.setattr(learned_parameters, "describe_tasks", lambda run, ids: tasks)
    found = learned_parameters._front_matter(loaded("CoOp"))["model-index"][0]["results"]
    types = [one["metrics"][0]["type"] for one in found]
    assert types == ["mean_average_precision", "accuracy"]


def test_exported_prompts_need_their_backbone_and_names(runs, loaded, tmp_path):
    softcpt.export_run(loaded("ProtoNet"), tmp_path / "out", "prompts")
    with pytest.raises(UserError, match="ProtoNet"):
        softcpt.load_run(tmp_path / "out", task=0, classes=("a", "b", "c"))
    with pytest.raises(UserError, match="backbone"):
        softcpt.load_run(tmp_path / "out", backbone="tiny")
    (tmp_path / "out" / "parameters.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"parameters\.safetensors"):
        softcpt.load_run(tmp_path / "out")


def test_exported_prompts_have_the_names_of_the_training(runs, tmp_path):
    run = softcpt.load_run(runs("CoOp"), task=0, classes=("a", "b", "c"))
    with pytest.raises(UserError, match="names"):
        softcpt.export_run(run, tmp_path / "prompts", "prompts")


def test_results_are_those_of_the_exported_epoch(runs, held_out, tmp_path):
    """The recorded ones belong to the checkpoint that the run evaluated."""
    words = ("OPTIM.MAX_EPOCH", 2, "TRAIN.CHECKPOINT_FREQ", 1, "TEST.CALIBRATION", "run")
    folder, path = runs("MTCoOp", *words), held_out(0)[0][0]
    last = softcpt.load_run(folder, epoch=2)
    assert last.record == softcpt.load_run(folder).record and last.record["tasks"]
    first = softcpt.load_run(folder, epoch=1)
    softcpt.export_run(first, tmp_path / "first", "prompts")
    again = softcpt.load_run(tmp_path / "first")
    assert torch.equal(again.logits(path), first.logits(path))
    assert not again.record["tasks"] and "calibration" not in again.record
    with pytest.raises(UserError, match="temperatures"):
        softcpt.export_run(first, tmp_path / "weights", calibrated=True)


def test_an_epoch_of_an_unfinished_run_is_loaded_again(runs, tmp_path):
    folder = shutil.copytree(runs("CoOp"), tmp_path / "run")
    record = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**record, "status": "interrupted"}))
    softcpt.export_run(softcpt.load_run(folder, epoch=1), tmp_path / "prompts", "prompts")
    assert softcpt.load_run(tmp_path / "prompts").tasks
