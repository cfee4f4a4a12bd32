"""A training step asks nothing of the GPU, so that its launches run ahead of what they start."""

from __future__ import annotations

import contextlib

import pytest
import torch

from clip import TextTower, _layout, _tiles, backbones
from dassl.engine import Step
from tests.trainers._device import THERE, PretendDevice, There

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
CASES = {
    "CoOp-MT": ("MTCoOpHard",),
    "CoOp-MT per task": ("MTCoOpHard", "TRAINER.MTCOOPH.TSC", True),
    "NATA": ("MTCoOp", "TRAINER.MTCOOP.TASK_N_CTX", 4),
    "NATS": ("MTCoOp", "TRAINER.MTCOOP.TASK_CSC", True),
    "CATA": ("MTCoOp", "TRAINER.MTCOOP.CSC", True, "TRAINER.MTCOOP.CLS_SAMPLE_RATE", 0.5),
    "CSTS": (
        *("MTCoOp", "TRAINER.MTCOOP.CSC", True, "TRAINER.MTCOOP.CLASS_CSC", True),
        *("TRAINER.MTCOOP.TASK_CSC", True, "TRAINER.MTCOOP.TASK_TOKEN_POSITION", "middle"),
    ),
    "CoOp": ("CoOp", *ONE),
    "CoOp per class": ("CoOp", *ONE, "TRAINER.COOP.CSC", True),
    "CoCoOp": ("CoCoOp", *ONE),
    "KgCoOp": ("KgCoOp", *ONE),
    "CoT": ("CoT", *ONE, "TRAINER.COT.AGGREGATOR", "attention"),
    "TCP": ("TCP", *ONE, "TRAINER.TCP.LAYER", 1),
    "TaskRes": ("TaskRes", *ONE),
    "DePT": ("DePT", *ONE),
    "VPT": ("VPT", *ONE),
    "IVLP": ("IVLP", *ONE),
    "MaPLe": ("MaPLe", *ONE),
    "PromptSRC": ("PromptSRC", *ONE),
    "CLIP-LoRA": (  # without dropout, as the stand-in device has no generator
        *("CLIPLoRA", *ONE, "TRAINER.CLIPLORA.ITERATIONS", 0, "TRAINER.CLIPLORA.DROPOUT", 0.0),
    ),
    "2SFS": ("TwoStage", *ONE, "TRAINER.TWOSTAGE.ITERATIONS", 0),
    "SoftCPT in depth": (
        *("MTCoOp", "MODEL.BACKBONE.NAME", "tiny-vit/random", "TRAINER.MTCOOP.DEPTH", 2),
        *("TRAINER.MTCOOP.IMAGE_PROMPTS", True, "TRAINER.MTCOOP.ANCHOR_LOGITS", 1.0),
    ),
    "CoOp on questions": ("CoOp", "DATASET.NAME", "ToyQuestions"),
    "CoCoOp on questions": ("CoCoOp", "DATASET.NAME", "ToyQuestions", "MODEL.TEXT_CHUNK", 64),
}


@pytest.fixture
def waits(build, asked, monkeypatch):
    """``waits(trainer, KEY, VALUE, ...)``: what the second training step would have waited for."""

    backbones._cached.cache_clear()  # what is moved is not for others

    def go(trainer, *opts):
        trainer = build(trainer, *opts, "COMPUTE.GRAPHS", False)  # graphs need a real GPU
        batches = list(trainer.train_loader_x)
        step = Step(0, 0, len(batches) + 1)
        trainer.set_model_mode("train")
        trainer.train_step(batches[0], step)  # counts rows, fills what is kept for a whole run
        device = PretendDevice()
        own = [x for x in vars(trainer).values() if isinstance(x, torch.nn.Module)]
        for module in (*own, trainer.model.text_tower):
            device.move(module)
        trainer.device = THERE
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
        with device:
            trainer.train_step(batches[0], step)  # moves what stays on the device
            device.waits.clear()
            _layout._layout.cache_clear()  # these prompts have not been seen
            _tiles.make_tiles.cache_clear()
            losses = trainer.train_step(batches[1], step)
        assert all(isinstance(loss, There) for loss in losses.values())
        return device.waits

    yield go
    backbones._cached.cache_clear()


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_step_does_not_wait_for_the_device(waits, case, tiled, monkeypatch):
    monkeypatch.setattr(TextTower, "tiled", tiled)
    found = waits(*CASES[case])
    assert not found, "\n".join(found)


def test_waiting_is_noticed():
    device, index = PretendDevice(), torch.tensor([0, 2])
    with device:
        there = torch.arange(4.0).to(THERE, non_blocking=True)
        there[index.to(THERE, non_blocking=True)].sum()
        index.tolist()
        assert device.waits == []
        for wait in (
            lambda: there.max().item(),
            lambda: there[there > 1],
            lambda: there[index],
            lambda: there.nonzero(),
            lambda: there.cpu(),
            lambda: index.to(THERE),
        ):
            wait()
            assert len(device.waits) == 1, device.waits
            device.waits.clear()
        with pytest.raises(RuntimeError, match="two devices"):
            there.index_select(0, index)
