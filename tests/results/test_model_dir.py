"""What ``--model-dir`` may name: the folder of a training with checkpoints."""

import pytest

from dassl.utils import UserError
from results.provenance import describe_weights
from tests._records import write


def checkpoint(folder):
    folder.mkdir(parents=True)
    (folder / "model.pth.tar-2").write_bytes(b"x")


@pytest.mark.parametrize(
    ("status", "epoch", "words"),
    [
        ("complete", None, "no checkpoint: its run with CoOp learned nothing"),
        ("interrupted", 3, "no checkpoint: its training stopped .*interrupted.*command again"),
        (None, None, "no checkpoint: give the folder of a training"),
    ],
)
def test_a_run_without_a_checkpoint(tmp_path, status, epoch, words):
    if status:
        write(tmp_path, status=status)
    with pytest.raises(UserError, match=words):
        describe_weights(str(tmp_path), epoch)


@pytest.mark.parametrize("given", [".", "seed1/prompt_learner"])
def test_a_folder_above_or_below_the_run_is_refused(tmp_path, given):
    checkpoint(tmp_path / "seed1" / "prompt_learner")
    with pytest.raises(UserError, match=f"belong to {tmp_path / 'seed1'}"):
        describe_weights(str(tmp_path / given), None)


@pytest.mark.parametrize("place", ["prompt_learner", "task0/prompt_learner"])
def test_checkpoints_of_a_run_or_of_its_tasks(tmp_path, place):
    checkpoint(tmp_path / "task1" / place)  # a run in a folder with the name of a task's
    assert describe_weights(str(tmp_path / "task1"), None)
