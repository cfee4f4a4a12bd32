"""How the towers are run changes nothing, and nothing waits where it need not."""

import pytest
import torch

from clip.backbones import load_uncached
from dassl.utils import load_checkpoint
from prompting.precision import choose_precision, lay_out, precision_name, prepare_clip
from tests._processes import in_processes
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
