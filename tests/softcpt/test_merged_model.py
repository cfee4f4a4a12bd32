"""export.py --as open_clip: a plain model of open_clip with what was learned in the towers."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import export
import softcpt
from softcpt import merged_model
from softcpt.images import load_images
from tests.clip._families import make_family
from tests.softcpt.test_export import run_readme

PROGRAM = export
LORA = ("CLIPLoRA", "MODEL.BACKBONE.NAME", "tiny-vit/random", "OPTIM.LR", 0.01)
TWO_STAGE = ("TwoStage", "MODEL.BACKBONE.NAME", "tiny-vit/random", "OPTIM.LR", 0.01)

PLAIN = """\
import json, open_clip
from safetensors.torch import load_file, save_file
config = json.load(open("open_clip_config.json"))["model_cfg"]
json.dump(config, open("../plain.json", "w"))
open_clip.add_model_config("../plain.json")
model = open_clip.create_model("plain", pretrained="open_clip_model.safetensors").eval()
features = model.encode_image(load_file("../pixels.safetensors")["x"], normalize=True)
save_file({"x": features.detach()}, "../features.safetensors")
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [LORA, TWO_STAGE], ids=["CLIPLoRA", "TwoStage"])
def test_open_clip_gives_the_features_of_the_run(options, runs, held_out, tmp_path, command):
    folder, run = tmp_path / "merged", softcpt.load_run(runs(*options))
    assert command(runs(*options), folder, "--as", "open_clip", "--task", "stripes")[0] == 0
    images = [path for path, _ in held_out(2)]
    pixels = next(load_images(run.cfg, images, 100)).pixels
    save_file({"x": pixels}, tmp_path / "pixels.safetensors")
    rows = run_readme(folder, *images, more=PLAIN)
    found = load_file(tmp_path / "features.safetensors")["x"]
    with torch.no_grad():
        theirs = run.place_of(2)[0].model.encode_image(pixels, torch.zeros(len(pixels)))["global"]
    torch.testing.assert_close(found, F.normalize(theirs, dim=-1), atol=1e-5, rtol=0)
    assert [row[0] for row in rows] == images
    if options[0] == "CLIPLoRA":  # whose text tower is merged too
        expected = run.predict(images, "stripes", top=1)
        assert [row[1] for row in rows] == [one.label for one in expected]
        for row, one in zip(rows, expected, strict=True):
            assert float(row[2]) == pytest.approx(one.probability, abs=2e-4)


def test_updates_of_the_text_tower_alone_are_merged(runs, tmp_path, command):
    options = ("CLIPLoRA", "TRAINER.CLIPLORA.ENCODER", "text", "OPTIM.LR", 0.01)
    words = (runs(*options), tmp_path / "out", "--as", "open_clip", "--task", 0)
    assert command(*words)[0] == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "are recognised by their phrases" in text
    assert text.index("encode_text") < text.index("for path in")  # once, not for every image


@pytest.mark.slow
def test_the_classes_of_an_image_in_a_multi_label_task(run, command, held_out, tmp_path):
    """The README's lines print the set of classes that predict.py does."""
    words = ("TRAINER.CLIPLORA.ENCODER", "text", "OPTIM.LOGIT_BIAS", -4.0, "OPTIM.MAX_EPOCH", 1)
    run("CLIPLoRA", *words, "TRAINER.CLIPLORA.ITERATIONS", 0, dataset="DigitLabels")
    trained = softcpt.load_run(tmp_path / "run")
    (t,) = [t for t, task in enumerate(trained.tasks) if task.kind.name == "multi_label"]
    code, _, err = command(tmp_path / "run", tmp_path / "out", "--as", "open_clip", "--task", t)
    assert code == 0, err
    images = [path for path, _ in held_out(1)]
    printed = {(row[0], row[1]) for row in run_readme(tmp_path / "out", *images)}
    found = {(one.image, label) for one in trained.predict(images, t) for label in one.labels}
    assert found and printed == found


@pytest.mark.parametrize("name", ["pe", "siglip2"])
def test_architecture_and_tokenizer_are_complete(name, runs, tmp_path, command, monkeypatch):
    """A tower of timm without projection, and one whose tokenizer is of the hub."""
    pytest.importorskip("transformers")
    make_family(tmp_path, name, hub=True)
    options = ("CLIPLoRA", "TRAINER.CLIPLORA.ENCODER", "text", "MODEL.BACKBONE.NAME", tmp_path)
    run = softcpt.load_run(runs(*options))
    softcpt.export_run(run, tmp_path / "merged", "open_clip", task=0)
    monkeypatch.chdir(tmp_path / "merged")
    model = open_clip.create_model("local-dir:.").eval()
    phrases = json.loads(Path("task.json").read_text())["phrases"]
    tokens = open_clip.get_tokenizer("local-dir:.")(phrases)
    with torch.no_grad():
        found = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(found, run.text_features(0), atol=1e-5, rtol=1e-5)


def test_open_clip_must_be_able_to_resize(runs, tmp_path, command):
    run = runs(*LORA, "INPUT.INTERPOLATION", "nearest", "DATASET.SUBSAMPLE_TASKS", "task0")
    code, _, err = command(run, tmp_path / "out", "--as", "open_clip")
    assert code == 2 and "nearest" in err and not (tmp_path / "out").exists()


def test_a_merged_model_with_other_features_is_refused(runs, tmp_path, command, monkeypatch):
    monkeypatch.setattr(merged_model, "TOLERANCE", -1)
    options = ("CLIPLoRA", "TRAINER.CLIPLORA.ENCODER", "text", "OPTIM.LR", 0.01)
    code, _, err = command(runs(*options), tmp_path / "out", "--as", "open_clip", "--task", 0)
    assert code == 2 and "features differ" in err and "--as prompts" in err
    assert not list(tmp_path.iterdir())


REFUSED = {
    "CoOp": "--as weights",
    "CoCoOp": "--as prompts",
    "VPT": "tokens",
    "ProtoNet": "classifier",
    "CLIPAdapter": "frozen",
}


@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_cannot_be_merged_say_why(method, runs, tmp_path, command):
    code, out, err = command(runs(method), tmp_path / "out", "--as", "open_clip")
    assert code == 2
    assert out == "" and err.count("\n") == 1 and method in err and REFUSED[method] in err
    assert not list(tmp_path.iterdir())


def test_one_model_per_task(runs, tmp_path, command):
    code, _, err = command(runs(*LORA), tmp_path / "out", "--as", "open_clip")
    assert code == 2 and "--task" in err and not list(tmp_path.iterdir())
