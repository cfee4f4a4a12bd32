"""Weight files of any bytes, and folders of open_clip: they load, or one line says why."""

import json
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import clip
from clip import CLIPError, _archs, backbones
from tests.clip.conftest import same_weights

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FORMS = ["w.pt", "w.bin", "w.pth", "w.safetensors"]


def refused(path, arch="tiny"):
    """The message of the one-line error for a weight file."""
    with pytest.raises(CLIPError) as caught:
        backbones.load_uncached(str(path), arch=arch)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    assert "weights_only" not in message and "KeyError" not in message
    return message


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", b"e\n" * 9, b"\x80\x02.", b"PK\x03\x04" + bytes(40), b"(lp0\n.", b"\0" * 99],
    ids=repr,
)
def test_files_that_hold_no_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@SETTINGS
@given(content=st.binary(max_size=300), name=st.sampled_from(FORMS))
def test_any_bytes(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """A small file of torch.save and one of safetensors."""
    folder = tmp_path_factory.mktemp("small")
    state = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(2)}
    torch.save(state, folder / "w.pt")
    save_file(state, folder / "w.safetensors")
    return folder


@SETTINGS
@given(
    name=st.sampled_from(["w.pt", "w.safetensors"]),
    noise=st.binary(min_size=1, max_size=20),
    where=st.floats(0, 1),
    cut=st.booleans(),
)
def test_damaged_bytes(small_file, tmp_path, name, noise, where, cut):
    content = bytearray((small_file / name).read_bytes())
    at = int(where * (len(content) - 1))
    content[at : at + len(noise)] = noise
    (tmp_path / name).write_bytes(bytes(content[:at] if cut else content))
    refused(tmp_path / name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_encoder.model.patch_embed.0.rbr_conv.0.conv.weight": torch.zeros(1)},
        {"text_projection": torch.zeros(64, 64).to_sparse()},
        {"input_resolution": torch.tensor(1), "context_length": torch.tensor(1),
         "vocab_size": torch.tensor(1), "visual.proj": torch.zeros(0),
         "visual.conv1.weight": torch.zeros(0, 0, 0, 0),
         "visual.positional_embedding": torch.zeros(0, 0)},
    ],
)  # fmt: skip
@pytest.mark.parametrize("arch", ["tiny", ""])
def test_weights_that_no_model_has(state, tmp_path, wrong, arch):
    torch.save({**state, **wrong}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", arch)


def test_a_zip_file_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("x/constants.pkl", "text")
    refused(tmp_path / "w.pt")


# ---------------------------------------------------------------- folders


@pytest.fixture
def folder(state, tmp_path, fresh):
    """A folder as open_clip saves it for the Hugging Face hub."""
    config = _archs.arch_config("tiny")
    preprocess = {"mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": "bicubic"}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    save_file(state, tmp_path / "open_clip_model.safetensors")
    return tmp_path


def test_a_folder_of_open_clip_loads(folder, state):
    model = clip.load_backbone(str(folder))
    assert same_weights(model, state) and model.image_mean == (0.1,) * 3
    assert clip.load_backbone(str(folder)) is model
    (folder / "open_clip_model.safetensors").unlink()
    other = {**state, "logit_scale": state["logit_scale"] + 1}
    torch.save(other, folder / "open_clip_pytorch_model.bin")
    assert clip.load_backbone(str(folder)).logit_scale == other["logit_scale"]


def test_folders_that_cannot_be_loaded(folder):
    def message():
        with pytest.raises(CLIPError) as caught:
            clip.load_backbone(str(folder))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with pytest.raises(CLIPError, match="ARCH is for weight files"):
        clip.load_backbone(str(folder), arch="tiny")
    config = folder / "open_clip_config.json"
    content = json.loads(config.read_text())
    for text in ("", "[]", "{}", '{"model_cfg": {"vision_cfg": 3}}', '{"model_cfg": null}'):
        config.write_text(text)
        assert "open_clip_config.json is no configuration of open_clip" in message()
    content["model_cfg"]["text_cfg"]["hf_model_name"] = "roberta-base"
    config.write_text(json.dumps(content))
    assert "roberta-base" in message()  # or transformers, is missing
    (folder / "open_clip_model.safetensors").unlink()
    assert "no weights: neither open_clip_model.safetensors nor" in message()
    config.unlink()
    assert "has no open_clip_config.json" in message()
    (folder / "config.json").write_text("{}")
    assert "transformers" in message()
