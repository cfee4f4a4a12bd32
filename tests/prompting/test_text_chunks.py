"""MODEL.TEXT_CHUNK: what the log says, what is chosen, and that it changes nothing learned."""

import pytest
import torch

import prompting.text_chunks as text_memory
from dassl.utils import UserError, size_in_words
from prompting.text_chunks import fitting_chunk, parse_chunk
from tests.prompting.test_absent_tasks import ten_steps

ONE_IMAGE = ("DATALOADER.TRAIN_X.BATCH_SIZE", "1", "OPTIM.MAX_EPOCH", "1")
CSTA = ("TRAINER.MTCOOP.CSC", "True", "TRAINER.MTCOOP.CLASS_CSC", "True")


def make(build, *more):
    return build("MTCoOp", *CSTA, *more)


def test_the_log_says_what_text_takes(run, tmp_path):
    run("MTCoOp", *CSTA)
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    line = next(line for line in log.splitlines() if "Text of a step" in line)
    assert "21 prompts, " in line  # three tasks, nine classes, nine classes in their contexts
    assert "free memory; all at once (MODEL.TEXT_CHUNK)" in line
    assert log.count("Text of a step") == 1
    assert log.index(line) < log.index("epoch [1/")


def test_classes_that_are_not_drawn_take_nothing(run, tmp_path):
    """One class of the image's, one other of each task: three tasks, four classes, four prompts."""
    run("MTCoOp", *CSTA, *("TRAINER.MTCOOP.CLS_SAMPLE_RATE", 0.01, *ONE_IMAGE))
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "Text of a step: 11 prompts, " in log


def test_a_method_without_learned_text_says_nothing(run, tmp_path):
    run("ZeroshotCLIP")
    assert "Text of a step" not in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


def test_chunks_change_nothing_learned(build, close):
    whole, chunked = make(build), make(build, "MODEL.TEXT_CHUNK", 64)
    expected = ten_steps(whole)
    found = ten_steps(chunked)
    assert whole.model.text_tower.chunk == 0 and chunked.model.text_tower.chunk == 64
    assert chunked.clip.text_tower.chunk == 0  # other runs of the process share this one
    for key, tensor in expected.items():
        close(found[key], tensor.double(), 1e-5)


def test_auto_chunks_where_memory_is_short(build, monkeypatch, capsys):
    monkeypatch.setattr(text_memory, "free_memory", lambda device: 2_000_000)
    monkeypatch.setattr(text_memory, "MIN_CHUNK", 16)
    trainer = make(build)
    ten_steps(trainer)
    chunk = trainer.model.text_tower.chunk
    assert chunk == 64 and chunk * trainer.clip.text_tower.row_bytes < 2_000_000 / 4
    size = size_in_words(64 * trainer.clip.text_tower.row_bytes)
    assert f"in chunks of 64 rows ({size}), recomputed in backward" in capsys.readouterr().out


def test_fitting_chunk():
    assert fitting_chunk(1000, 1000, 2_000_000) == 0
    assert fitting_chunk(1001, 1000, 2_000_000) == 256  # 500 would fit a quarter
    assert fitting_chunk(50_000, 1000, 40_000_000) == 8192
    assert fitting_chunk(50_000, 1000, 44_000_000) == 8192
    assert fitting_chunk(50_000, 1000, 1000) == 256


@pytest.mark.parametrize("value", ["-1", "1.5", "some", ""])
def test_a_value_that_is_none(build, value):
    with pytest.raises(UserError, match=f"MODEL.TEXT_CHUNK.*got {value!r}"):
        build("CoOp", "MODEL.TEXT_CHUNK", value)
    assert parse_chunk("auto") is None and parse_chunk("0") == 0 and parse_chunk("512") == 512


def test_counting_draws_nothing(build):
    """The random numbers after it are those of a run without it."""
    trainer = make(build)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    trainer.model.text.plan(lambda: torch.rand(5))
    assert torch.equal(torch.rand(1), expected)


def test_a_resumed_training_uses_the_threads_of_its_start(build, monkeypatch):
    """Their number is not measured again: it could come out otherwise, and change the rounding."""
    before = torch.get_num_threads()
    trainer = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task0")
    assert trainer.extra_state()["threads"] == 0  # nothing is chosen before the first step
    monkeypatch.setattr(text_memory, "choose_threads", pytest.fail)
    trainer.load_extra_state({"threads": 3})
    try:
        trainer.model.text.plan(lambda: None)
        assert torch.get_num_threads() == 3 == trainer.extra_state()["threads"]
    finally:
        torch.set_num_threads(before)
