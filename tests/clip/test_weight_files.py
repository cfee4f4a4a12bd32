"""Weight files: every form that loads, and one line for every other."""

import hashlib
import os
import pickle

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import clip
from clip import CLIPError, _archs, backbones
from tests.clip.conftest import same_weights

SIZES = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}


class Exploit:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("touch exploited",)


class Archived(nn.Module):
    """Tensors under dotted names, as a module that TorchScript can archive."""

    def __init__(self, state):
        super().__init__()
        for name, tensor in state.items():
            *path, last = name.split(".")
            place = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, Archived({}))
                place = place._modules[part]
            place.register_buffer(last, tensor)

    def forward(self, x):
        return x


@pytest.fixture(scope="module")
def openai_state(state):
    return {**state, **{name: torch.tensor(size) for name, size in SIZES.items()}}


@pytest.mark.parametrize("form", ["safetensors", "torch", "wrapped", "module"])
def test_file_with_arch(form, state, tmp_path, fresh):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "torch":
        torch.save(state, path)
    elif form == "wrapped":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    model = clip.load_backbone(str(path), arch="tiny")
    assert same_weights(model, state) and model.name == str(path)
    assert model.weights_hash == clip.load_backbone("tiny/random").weights_hash


@pytest.mark.parametrize("form", ["state dict", "archive"])
def test_openai_file_tells_its_architecture(form, openai_state, state, tmp_path, fresh):
    path = tmp_path / "weights.pt"
    if form == "archive":
        torch.jit.script(Archived(openai_state)).save(str(path))
    else:
        torch.save(openai_state, path)
    model = clip.load_backbone(str(path))
    assert same_weights(model, state)
    assert model.config == _archs.arch_config("tiny") and model.config["quick_gelu"]


@pytest.mark.parametrize("official", [True, False])
def test_archive_of_a_published_name(official, openai_state, state, offline, monkeypatch):
    """Opened if its sha256 is the official one, and only then."""
    folder = offline / ".cache" / "clip"
    folder.mkdir(parents=True)
    torch.jit.script(Archived(openai_state)).save(str(folder / "RN50.pt"))
    digest = hashlib.sha256((folder / "RN50.pt").read_bytes()).hexdigest()
    host = "openaipublic.example" if official else "example.org"
    published = {
        **open_clip.get_pretrained_cfg("RN50", "openai"),
        "url": f"https://{host}/{digest}/RN50.pt",
    }
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda arch, tag: published)
    tiny = _archs.arch_config("tiny")
    monkeypatch.setattr(_archs, "arch_config", lambda arch: tiny)
    if official:
        assert same_weights(backbones.load_uncached("RN50"), state)
    else:
        with pytest.raises(CLIPError, match=r"RN50\.pt, found for RN50, is a TorchScript archive"):
            backbones.load_uncached("RN50")


def test_openai_shapes_of_a_vit():
    """The shapes of OpenAI's ViT tell open_clip's quickgelu configuration of it."""
    config = _archs.arch_config("ViT-B-32-quickgelu")
    with torch.device("meta"):
        state = open_clip.CLIP(
            **{k: v for k, v in config.items() if k != "custom_text"}
        ).state_dict()
    assert _archs.openai_config(state) == config


def test_changed_file_is_read_again(state, tmp_path, fresh):
    path = tmp_path / "w.pt"
    torch.save(state, path)
    first = clip.load_backbone(str(path), arch="tiny")
    assert clip.load_backbone(str(path), arch="tiny") is first
    torch.save({**state, "logit_scale": state["logit_scale"] + 1}, path)
    os.utime(path, ns=(1, 1))
    second = clip.load_backbone(str(path), arch="tiny")
    assert second.logit_scale == first.logit_scale + 1


def test_custom_text_weights(small, tmp_path, fresh, monkeypatch):
    """A file in CLIP's layout fills a model that keeps its text tower under ``text``."""
    model = small()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    config = _archs.normalize(
        {
            "embed_dim": 16,
            "custom_text": True,
            "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8,
                           "image_size": 16},
            "text_cfg": {"width": 32, "heads": 2, "layers": 2},
        }
    )  # fmt: skip
    monkeypatch.setattr(_archs, "arch_config", lambda arch: config)
    facade = clip.load_backbone(str(tmp_path / "w.pt"), arch="small")
    tokens = clip.tokenize(["a cat", "dog"])
    assert torch.allclose(facade.encode_text(tokens), model.encode_text(tokens), atol=1e-6)


def test_file_that_does_not_tell_its_architecture(state, tmp_path):
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CLIPError, match=r"does not contain its architecture; name it in MODEL"):
        clip.load_backbone(str(tmp_path / "w.pt"))


def test_file_of_another_architecture(state, tmp_path):
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CLIPError, match=r"another architecture: missing: .* and \d+ more; not in"):
        clip.load_backbone(str(tmp_path / "w.pt"), arch="ViT-B-32")
    torch.save({**state, "text_projection": torch.zeros(64, 32)}, tmp_path / "v.pt")
    with pytest.raises(CLIPError, match=r"text_projection is \(64, 32\) in the file and \(64, 64"):
        clip.load_backbone(str(tmp_path / "v.pt"), arch="tiny")


def test_openai_file_without_its_weights(tmp_path):
    torch.save({k: torch.tensor(v) for k, v in SIZES.items()}, tmp_path / "w.pt")
    with pytest.raises(CLIPError, match="not the weights of an OpenAI CLIP: 'visual"):
        clip.load_backbone(str(tmp_path / "w.pt"))


def test_openai_shapes_that_cannot_be(openai_state):
    for name, shape in (("ln_final.weight", (3,)), ("visual.layer1.0.conv1.weight", ())):
        with pytest.raises(CLIPError, match="not the weights of an OpenAI CLIP: "):
            _archs.openai_config({**openai_state, name: torch.zeros(shape)})
    with pytest.raises(CLIPError, match="a text width of 3 is no multiple of 64"):
        _archs.openai_config({**openai_state, "ln_final.weight": torch.zeros(3)})


def test_openai_weights_get_quickgelu_whatever_arch_says(openai_state, tmp_path, monkeypatch):
    config = {**_archs.arch_config("tiny"), "quick_gelu": False}
    monkeypatch.setattr(_archs, "arch_config", lambda arch: dict(config))
    torch.save(openai_state, tmp_path / "w.pt")
    model = backbones.load_uncached(str(tmp_path / "w.pt"), arch="plain")
    assert model.config["quick_gelu"]


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin"])
def test_damaged_file(name, tmp_path):
    (tmp_path / name).write_bytes(bytes(range(256)) * 20)
    with pytest.raises(CLIPError, match=r"cannot be read as weights: ."):
        clip.load_backbone(str(tmp_path / name), arch="tiny")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CLIPError, match=r"cannot be read as weights"):
        clip.load_backbone(str(tmp_path / name), arch="tiny")


def test_truncated_file(state, tmp_path):
    torch.save(state, tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CLIPError, match="cannot be read as weights"):
        clip.load_backbone(str(tmp_path / "w.pt"), arch="tiny")


def test_hostile_file_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Exploit()}, "new.pt")
    with open("old.pt", "wb") as file:
        pickle.dump(Exploit(), file)
    for name in ("new.pt", "old.pt"):
        with pytest.raises(CLIPError, match="cannot be read as weights"):
            clip.load_backbone(name, arch="tiny")
    assert not (tmp_path / "exploited").exists()


def test_file_that_holds_something_else(tmp_path):
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(CLIPError, match="holds no weights: a list, not names and tensors"):
        clip.load_backbone(str(tmp_path / "w.pt"), arch="tiny")
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(CLIPError, match="holds no weights: 'epoch' is not a tensor"):
        clip.load_backbone(str(tmp_path / "w.pt"), arch="tiny")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.touch()

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("clip._weights.load_file", refuse)
    with pytest.raises(CLIPError, match=r"w.safetensors cannot be read: Permission denied"):
        clip.load_backbone(str(path), arch="tiny")
