"""How the towers are run changes nothing, and nothing waits where it need not."""

import pytest
import torch

from clip.backbones import load_uncached
from dassl.engine import Step
from dassl.utils import load_checkpoint
from prompting.precision import (
    choose_precision,
    lay_out,
    load_frozen_clip,
    precision_name,
    prepare_clip,
)
from tests._processes import in_processes
from tests.conftest import backbone_of
from tests.trainers._methods import E, options


@pytest.fixture
def backbone():
    """A tiny backbone of the test's own."""
    return load_uncached("tiny/random")


def images():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def same(found, expected):
    return ((found - expected).norm() / expected.norm()).item() <= 1e-5


def test_channels_last_gives_the_same_features(backbone):
    expected = backbone.encode_image(images())
    names = list(backbone.state_dict())
    lay_out(backbone.visual)
    assert same(backbone.encode_image(images()), expected)
    assert list(backbone.state_dict()) == names
    assert backbone.visual.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_vit_keeps_its_layout():
    visual = load_uncached("ViT-B-32/random").visual
    before = visual.conv1.weight.stride()
    lay_out(visual)
    assert visual.conv1.weight.stride() == before


@pytest.mark.slow
def test_a_compiled_tower_gives_the_same_features(backbone, build):
    def compiled():
        expected = backbone.encode_image(images())
        weights = backbone.weights_hash
        options = build("MTCoOpHard", "COMPUTE.COMPILE", True).cfg.COMPUTE
        prepare_clip(backbone, options)
        assert backbone.visual._compiled_call_impl is not None
        assert same(backbone.encode_image(images()), expected)
        assert load_uncached("tiny/random").weights_hash == weights

    # The compiler starts autograd's threads, and a process that has them cannot fork any more.
    assert in_processes(compiled, count=1) == [0]


def test_the_precision_of_a_cpu_has_no_tf32():
    assert precision_name("fp32", torch.device("cpu")) == "fp32"


def test_how_it_is_computed_is_not_part_of_a_runs_identity(run, tmp_path):
    first = run("MTCoOpHard", output=tmp_path / "a")
    second = run("MTCoOpHard", "COMPUTE.TF32", True, "FEATURES.LIMIT_GB", 7, output=tmp_path / "b")
    assert first["hashes"]["config"] == second["hashes"]["config"]
    a, b = (
        load_checkpoint(tmp_path / name / "prompt_learner" / "model.pth.tar-2") for name in "ab"
    )
    assert torch.equal(a["state_dict"]["prompts.ctx"], b["state_dict"]["prompts.ctx"])


def test_a_step_gives_tensors_that_are_read_once_a_line(run, tmp_path, monkeypatch):
    """On a GPU every number that is read waits for all the work before it."""
    reads = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda t: reads.append(t) or item(t))
    many = ("DATALOADER.TRAIN_X.BATCH_SIZE", 2, "TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 1)
    run("MTCoOpHard", *many, "TRAIN.PRINT_FREQ", 1000)
    assert len(reads) <= 3
    line = next(
        text
        for text in (tmp_path / "run" / "log.txt").read_text().splitlines()
        if "[18/18]" in text
    )
    assert "images/s " in line


def test_text_time_is_that_of_the_prompter_both_ways(build, monkeypatch):
    trainer = build("MTCoOpHard", "TEST.NO_TEST", True)
    now = [0.0]
    monkeypatch.setattr("dassl.utils.lockstep.time.perf_counter", lambda: now[0])

    def takes(seconds):
        def hook(*_):
            now[0] += seconds

        return hook

    trainer.model.prompter.prompts.register_forward_hook(takes(3.0))
    trainer.model.prompter.prompts.ctx.register_hook(takes(5.0))
    encode = trainer.model.encode_image
    monkeypatch.setattr(trainer.model, "encode_image", lambda *args: takes(7.0)() or encode(*args))
    compute_loss = trainer.compute_loss
    monkeypatch.setattr(trainer, "compute_loss", lambda *a: takes(0.5)() or compute_loss(*a))
    trainer.train()
    steps = 2 * 4
    expected = {"data": 0, "image": 7.0 * steps, "text": 8.0 * steps, "rest": 0.5 * steps}
    expected["text"] += 3.0  # its rows are counted before the first step
    assert trainer.seconds == pytest.approx(expected)


def test_half_precision_needs_a_gpu(run):
    content = run("CoOp", *options(), "USE_CUDA", "False", "TRAINER.COOP.PREC", "fp16")
    assert content["run"]["precision"] == "fp32"
    assert content["protocol"]["options"]["PREC"] == "fp16"
    assert choose_precision("fp16", "cuda") == "fp16"
    assert choose_precision("amp", "cpu") == choose_precision("fp32", "cuda") == "fp32"


def test_logits_are_not_rounded_under_amp(build):
    trainer = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task0")
    images = torch.randn(4, E)
    with torch.no_grad():
        infer = trainer.build_inference("test")  # encodes the text once, in full precision
        exact = infer({"global": images})
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(infer({"global": images}), exact)


def test_mixed_precision_converts_the_frozen_weights_once(build, monkeypatch):
    fresh = load_uncached("tiny/random")
    monkeypatch.setattr("prompting.precision.load_backbone", lambda *_, **__: fresh)
    cfg = build("CoOp").cfg
    for precision, expected in (("fp32", torch.float32), ("amp", torch.bfloat16)):
        backbone = load_frozen_clip(cfg, precision, "cpu", frozenset({"global"}))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert backbone.visual.conv1.weight.dtype == expected
        assert backbone.state_dict()["visual.conv1.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    "method",
    ["MTCoOp", "PLOT", "PromptSRC", "CLIPLoRA"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("CoCoOp", "VPT", "MaPLe", "DePT", "TCP", "TwoStage")
    ],
)
def test_training_with_weights_converted_once_is_equal_to_the_last_bit(build, monkeypatch, method):
    """Three steps and an evaluation in mixed precision; tests/clip/test_casts.py has the towers."""
    monkeypatch.setattr("torch.backends.mha.get_fastpath_enabled", lambda: False)  # as on a GPU
    backbone = load_uncached(backbone_of(method))
    monkeypatch.setattr("prompting.precision.load_backbone", lambda *_, **__: backbone)
    found = []
    for once in (False, True):
        trainer = build(method, *options(), "DATASET.SUBSAMPLE_TASKS", "task2")
        rounding = torch.autocast("cpu", dtype=torch.bfloat16)
        monkeypatch.setattr(trainer, "autocast", lambda rounding=rounding: rounding)
        if once:
            trainer.clip.convert_once()
        batch = next(iter(trainer.train_loader_x))
        for number in range(3):
            trainer.train_step(batch, Step(0, number, 3))
        with torch.no_grad(), rounding:
            images = trainer.image_features(batch)
            logits = trainer.build_inference("test")(images)
        state = trainer.model.prompter.state_dict().values()
        found.append([logits, *images.values(), *(value.clone() for value in state)])
    assert all(torch.equal(plain, once) for plain, once in zip(*found, strict=True))
