"""Checkpoints of other methods, backbones and classes."""

import pytest
import torch

from dassl.utils import UserError, load_checkpoint
from dassl.utils.checkpoint import write_tensors


@pytest.fixture
def trained(run, tmp_path):
    """The folder of a finished CoOp-CS run on the suite's first task."""
    run("CoOp", "TRAINER.COOP.CSC", "True", "DATASET.SUBSAMPLE_TASKS", "task0")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("trainer", "opts", "epoch", "message"),
    [
        ("CoOp", ("TRAINER.COOP.CSC", "True"), 7, r"no checkpoint .*tar-7; .* holds .*tar-2"),
        ("MTCoOp", (), 2, "does not fit this trainer .* tasks.ctx is missing"),
        ("CoOp", (), 2, r"ctx has shape \(3, 16, 64\), here \(16, 64\)"),
        (
            "CoOp",
            ("TRAINER.COOP.CSC", "True", "DATASET.SUBSAMPLE_TASKS", "task2"),
            2,
            r"shape \(3, 16, 64\), here \(4, 16, 64\).*another method, backbone, context or set",
        ),
    ],
)
def test_checkpoints_of_something_else(build, trained, trainer, opts, epoch, message):
    other = build(trainer, "DATASET.SUBSAMPLE_TASKS", "task0", *opts)
    with pytest.raises(UserError, match=message):
        other.load_model(trained, epoch=epoch)


def test_checkpoint_of_another_backbone(build, trained):
    path = trained / "prompt_learner" / "model.pth.tar-2"
    wider = torch.zeros(3, 16, 384)  # of another text tower
    write_tensors({**load_checkpoint(path), "state_dict": {"prompts.ctx": wider}}, path)
    other = build("CoOp", "TRAINER.COOP.CSC", "True", "DATASET.SUBSAMPLE_TASKS", "task0")
    with pytest.raises(UserError, match=r"shape \(3, 16, 384\), here \(3, 16, 64\)"):
        other.load_model(trained, epoch=2)


def test_shared_context_goes_to_other_classes(build, run, tmp_path):
    run("CoOp", "DATASET.SUBSAMPLE_TASKS", "task0")
    other = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task2")
    before = other.model.prompter.prompts.ctx.clone()
    other.load_model(tmp_path / "run", epoch=2)
    assert not torch.equal(other.model.prompter.prompts.ctx, before)
    other.test()
    assert other.results()["tasks"][0]["total"] == 12
