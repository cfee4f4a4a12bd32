"""export.py: the exports work without this project, and give what the run gives."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import export
import softcpt
from softcpt.export_folder import describe_input
from softcpt.images import load_images
from tests.clip._families import STAND_INS, make_family

PROGRAM = export

NO_ONNX = any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript"))


def run_readme(folder, *images, more=""):
    """What the README's code, and ``more`` after it, print without finding this repository."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if extra := os.environ.get("PYTHONPATH"):  # of optional packages
        environment["PYTHONPATH"] = os.path.abspath(extra)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code + more, *map(str, images)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_class_weights_need_open_clip_only(command, runs, held_out, tmp_path):
    """The README's lines classify the test images as the run did, and images of other forms."""
    folder, task = tmp_path / "weights", "stripes"
    trained = runs("MTCoOp", "INPUT.EXIF", "apply")
    code, out, _ = command(trained, folder, "--task", task)
    assert code == 0 and "weights.safetensors" in out
    images = [path for path, _ in held_out(2)]
    for mode, size in (("L", (40, 33)), ("RGBA", (31, 90)), ("P", (64, 48))):
        Image.effect_noise(size, 90).convert(mode).save(tmp_path / f"{mode}.png")
        images.append(str(tmp_path / f"{mode}.png"))
    turned = Image.new("RGB", (40, 20), "red")
    turned.paste("blue", (0, 0, 9, 20))
    turned.getexif()[0x0112] = 6  # Orientation
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    images.append(str(tmp_path / "turned.jpg"))
    found = run_readme(folder, *images)
    expected = softcpt.load_run(trained).predict(images, task, top=1)
    assert [row[:2] for row in found] == [[one.image, one.label] for one in expected]
    for row, one in zip(found, expected, strict=True):
        assert float(row[2]) == pytest.approx(one.probability, abs=2e-4)
    info = json.loads((folder / "weights.json").read_text())
    assert [task["name"] for task in info["tasks"]] == ["stripes"]
    assert info["source"]["method"] == "SoftCPT-NATA" and info["source"]["data"]


@pytest.mark.parametrize(
    "options",
    [("CLIPLoRA", "TRAINER.CLIPLORA.ENCODER", "both"), ("TwoStage",)],
    ids=["CLIPLoRA", "TwoStage"],
)
def test_what_is_learned_in_the_towers_is_merged(options, command, runs, held_out, tmp_path):
    """Their plain CLIP gives what the run gives; there is one for each task."""
    folder = tmp_path / "weights"
    run = runs(*options, "MODEL.BACKBONE.NAME", "tiny-vit/random", "OPTIM.LR", 0.01)
    code, _, err = command(run, folder)
    assert code == 2 and "--task" in err
    code, _, err = command(run, folder, "--task", "stripes")
    assert code == 0, err
    images = [path for path, _ in held_out(2)]
    expected = softcpt.load_run(run).predict(images, "stripes", top=1)
    (tmp_path / "no_image.jpg").write_text("no image")
    found = run_readme(folder, tmp_path / "no_image.jpg", *images)  # which it leaves out
    for row, one in zip(found, expected, strict=True):
        assert row[:2] == [one.image, one.label]
        assert float(row[2]) == pytest.approx(one.probability, abs=2e-4)


def test_preprocessing_is_that_of_the_run(runs):
    """Without "normalize" pixels stay between 0 and 1; some backbones resize both sides."""
    plain = describe_input(softcpt.load_run(runs("CoOp", "INPUT.TRANSFORMS", "()")))
    assert plain["mean"] == [0, 0, 0] and plain["std"] == [1, 1, 1]
    usual = describe_input(softcpt.load_run(runs("CoOp", "INPUT.RESIZE_MODE", "squash")))
    assert usual["mean"] == [0.3] * 3 and usual["resize_mode"] == "squash"


@pytest.mark.parametrize("method", ["CoCoOp", "MMA", "ProtoNet", "VPT"])
def test_methods_without_class_weights(method, command, runs, tmp_path):
    code, out, err = command(runs(method), tmp_path / "out")
    assert code == 2 and out == "" and method in err and "--as prompts" in err
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir())


@pytest.mark.skipif(NO_ONNX, reason="onnx and onnxscript are not installed")
@pytest.mark.slow
@pytest.mark.parametrize("method", ["MTCoOp", "CLIPAdapter", "VPT"])
def test_onnx(method, command, runs, loaded, held_out, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    folder, run, task = tmp_path / "onnx", loaded(method), "stripes"
    code, _, err = command(runs(method), folder, "--as", "onnx", "--task", task)
    assert code == 0, err
    images = [path for path, _ in held_out(2)]
    pixels = next(load_images(run.cfg, images, 100)).pixels
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    for count in (1, 2, len(images)):
        logits = session.run(None, {"images": pixels[:count].numpy()})[0]
        expected = run.logits(images[:count], task)
        assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)
    found = run_readme(folder, images[0])
    expected = run.predict(images[0], task, top=1)
    assert [row[:3] for row in found] == [[one.image, one.task, one.label] for one in expected]


@pytest.mark.skipif(NO_ONNX, reason="onnx and onnxscript are not installed")
@pytest.mark.slow
def test_onnx_of_all_kinds_of_label(run, command, held_out, tmp_path):
    """The README's lines print what predict.py does: a class with its probability, or a set."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    words = ("DATASET.NUM_SHOTS", 1, "OPTIM.LOGIT_BIAS", -4.0, "OPTIM.MAX_EPOCH", 1)
    run("MTCoOp", *words, dataset="DigitLabels")
    folder, trained = tmp_path / "onnx", softcpt.load_run(tmp_path / "run")
    code, _, err = command(tmp_path / "run", folder, "--as", "onnx")
    assert code == 0, err
    images = [path for path, _ in held_out(1)]
    (tmp_path / "no_image.jpg").write_text("no image")
    lines = run_readme(folder, tmp_path / "no_image.jpg", *images)  # which it leaves out
    printed = {(image, task): words for image, task, *words in lines}
    tasks = json.loads((folder / "model.json").read_text())["tasks"]
    assert [task.get("kind") for task in tasks] == ["ordinal", "multi_label", None]
    for one in trained.predict(images, top=1):
        words = printed[one.image, one.task]
        if one.task == tasks[1]["name"]:
            assert (one.label in words) if one.label else not words
        else:
            assert words[0] == one.label
            assert float(words[1]) == pytest.approx(one.probability, abs=2e-4)


@pytest.mark.skipif(NO_ONNX, reason="onnx and onnxscript are not installed")
@pytest.mark.slow
def test_onnx_of_a_loop_until_convergence(command, runs, tmp_path):
    code, _, err = command(runs("PLOT"), tmp_path / "out", "--as", "onnx", "--task", 0)
    assert code == 2 and "PLOT" in err and not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(command, runs, tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file"):
        code, _, err = command(runs("CoOp"), place)
        assert code == 2 and str(place) in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    assert command(runs("CoOp"), tmp_path / "empty")[0] == 0


REFUSED = {
    "no run": (("gone", "{out}"), "gone"),
    "an unknown task": (("{run}", "{out}", "--task", "flower"), "stripes"),
    "an unknown kind": (("{run}", "{out}", "--as", "onx"), "onnx"),
    "onnx of conditional prompts": (("{conditional}", "{out}", "--as", "onnx"), "CoCoOp"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes(case, command, runs, tmp_path):
    words, part = REFUSED[case]
    places = {"run": runs("CoOp"), "conditional": runs("CoCoOp"), "out": tmp_path / "out"}
    code, out, err = command(*[word.format(**places) for word in words])
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert part in err and not list(tmp_path.iterdir())


def test_onnx_without_its_packages(command, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = command(runs("CoOp"), tmp_path / "out", "--as", "onnx")
    assert code == 2 and "pip install onnx onnxscript" in err


def test_a_failed_export_leaves_nothing(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr("softcpt.class_weights.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        softcpt.export_run(loaded("CoOp"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["bert", "coca"])
def test_class_weights_of_other_towers(name, run, command, held_out, tmp_path):
    """A tower that gives token features too, and one whose text half is of Hugging Face."""
    pytest.importorskip("transformers")
    make_family(tmp_path, name, hub=True)
    run("CoOp", *("MODEL.BACKBONE.NAME", tmp_path), "DATASET.SUBSAMPLE_TASKS", "task2")
    folder, images = tmp_path / "weights", [path for path, _ in held_out(2)]
    code, _, err = command(tmp_path / "run", folder)
    assert code == 0, err
    info = json.loads((folder / "weights.json").read_text())
    shutil.copy(folder / "backbone.json", folder / f"{name}_plain.json")
    with contextlib.chdir(folder):  # of the README
        open_clip.add_model_config(f"{name}_plain.json")
        plain = open_clip.create_model(f"{name}_plain", pretrained="backbone.safetensors").eval()
    loaded = softcpt.load_run(tmp_path / "run")
    pixels = next(load_images(loaded.cfg, images, 100)).pixels
    with torch.no_grad():
        features = F.normalize(plain.encode_image(pixels), dim=-1)
    weights = load_file(folder / "weights.safetensors")["task0"]
    found = info["logit_scale"] * features @ weights.T
    torch.testing.assert_close(found, loaded.logits(images), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_class_weights_of_siglip(run, command, held_out, tmp_path, monkeypatch):
    """open_clip's own names for the text tower; a bias, which cancels; images that are squashed."""
    make_family(tmp_path, "siglip")
    monkeypatch.setattr("clip._hub.load_tokenizer", lambda *_: STAND_INS["t5"])
    run("CoOp", *("MODEL.BACKBONE.NAME", tmp_path), *("TRAINER.COOP.N_CTX", 2))
    folder = tmp_path / "weights"
    code, _, err = command(tmp_path / "run", folder, "--task", "stripes")
    assert code == 0, err
    images = [path for path, _ in held_out(2)]
    Image.effect_noise((31, 90), 90).save(tmp_path / "tall.png")
    images.append(str(tmp_path / "tall.png"))
    found = run_readme(folder, *images)
    expected = softcpt.load_run(tmp_path / "run").predict(images, "stripes", top=1)
    for row, one in zip(found, expected, strict=True):
        assert float(row[2]) == pytest.approx(one.probability, abs=2e-4)
