"""OpenAI's ``clip`` package as CoOp and its descendants use it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import clip
from clip import clip as clip_module
from clip.simple_tokenizer import SimpleTokenizer
from clip.tiny import Recipe


@pytest.fixture
def quick_tiny(monkeypatch, tmp_path, fresh):
    """``tiny`` after two steps of pre-training, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("clip.tiny.cache.Recipe", lambda: Recipe(steps=2, images=16, captions=8))


def load_clip_to_cpu(name):
    """What CoOp's trainers do before they build a model."""
    url = clip_module._MODELS[name]
    model_path = clip_module._download(url)
    try:
        model = torch.jit.load(model_path, map_location="cpu").eval()
        state_dict = None
    except RuntimeError:
        state_dict = torch.load(model_path, map_location="cpu")
    return clip_module.build_model(state_dict or model.state_dict())


def test_coops_way_to_a_model(quick_tiny):
    model = load_clip_to_cpu("tiny")
    assert model.dtype == torch.float16 and not model.training
    expected = clip.load_backbone("tiny")
    tokens = clip.tokenize(["a photo of the digit two."])
    assert torch.allclose(
        model.float().encode_text(tokens), expected.encode_text(tokens), atol=5e-3
    )
    assert model.image_mean == expected.image_mean and model.config == expected.config
    assert model.visual.input_resolution == 32


def test_models():
    assert clip.available_models()[:2] == ["RN50", "RN101"] and "tiny" in clip.available_models()
    assert set(clip_module._MODELS) == set(clip.available_models())
    assert all("openaipublic" in u for n, u in clip_module._MODELS.items() if n != "tiny")


def test_load(quick_tiny):
    model, transform = clip.load("tiny", device="cpu")
    assert model is not clip.load_backbone("tiny") and model.dtype == torch.float32
    gray = Image.fromarray(np.full((40, 50), 128, dtype=np.uint8))
    image = transform(gray)
    assert image.shape == (3, 32, 32)
    assert torch.allclose(image, torch.tensor((128 / 255 - 0.3) / 0.35), atol=1e-4)
    assert model.encode_image(image[None]).shape == (1, 64)


def test_load_looks_in_the_folder_that_it_is_given(offline):
    with pytest.raises(clip.CLIPError, match=r"to be saved as .*mine/RN50.pt"):
        clip.load("RN50", device="cpu", download_root=str(offline / "mine"))


def test_load_from_a_file(offline):
    with pytest.raises(clip.CLIPError, match=r"no weight file at gone\.pt"):
        clip.load("gone.pt", device="cpu")


def test_tokenize():
    tokens = clip.tokenize(["a photo of a cat", "dog"])
    assert tokens.shape == (2, 77) and tokens.dtype == torch.long
    assert tokens[1, :4].tolist() == [49406, 1929, 49407, 0]
    assert torch.equal(clip.tokenize("dog"), tokens[1:])
    with pytest.raises(clip.CLIPError, match="8 tokens does not fit the context of 5: 'a b c d e"):
        clip.tokenize("a b c d e f", context_length=5)
    cut = clip.tokenize("a b c d e f", context_length=5, truncate=True)
    assert cut[0].tolist() == [*clip.tokenize("a b c", context_length=5)[0, :4].tolist(), 49407]


def test_tokenizer():
    tokenizer = SimpleTokenizer()
    ids = tokenizer.encode("A photo of a Cat.")
    assert ids == [320, 1125, 539, 320, 2368, 269]
    assert tokenizer.decode(ids) == "a photo of a cat . "
    assert tokenizer.encoder["<|startoftext|>"] == 49406
    assert tokenizer.encoder["<|endoftext|>"] == 49407


def test_build_model_of_something_else():
    with pytest.raises(clip.CLIPError, match="not the weights of an OpenAI CLIP"):
        clip_module.build_model({"weight": torch.zeros(2)})


def test_import_says_nothing():
    code = "import clip, logging; assert not logging.root.handlers; clip.list_backbones()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
