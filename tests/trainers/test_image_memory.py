"""The memory that the log announces for the images of a step, against what a step takes."""

import re

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
OPTIONS = {"VPT": ("TRAINER.VPT.PROMPT_DEPTH_VISION", 3), "CLIPLoRA": (), "TwoStage": ()}
ANNOUNCED = re.compile(r"Images of a step: 16 images .*about ([\d.]+) MB(, recomputed| of act)")


def peak_of(call):
    """Largest memory, in MB, of the tensors that ``call`` makes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / 1e6


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("method", OPTIONS)
def test_the_memory_of_a_step_is_announced_once(build, capsys, method, recompute):
    again = ("COMPUTE.IMAGE_CHECKPOINT", str(recompute))
    trainer = build(method, *ONE, *OPTIONS[method], *again)
    trainer.model.prompter.train()
    images = torch.randn(16, 3, 32, 32)

    def step():
        trainer.model.encode_image(images)["global"].square().sum().backward()

    step()
    ((size, how),) = ANNOUNCED.findall(capsys.readouterr().out)
    assert ("recomputed" in how) == recompute
    assert 0.8 < float(size) / peak_of(step) < 1.25
    assert "Images of a step" not in capsys.readouterr().out


def test_one_image_and_one_token_are_singular(build, capsys):
    """VPT, with one token."""
    trainer = build("VPT", *ONE, "TRAINER.VPT.N_CTX_VISION", 1)
    trainer.model.prompter.train()
    trainer.model.encode_image(torch.randn(1, 3, 32, 32))
    assert "Images of a step: 1 image with 1 prompt token each, about" in capsys.readouterr().out
