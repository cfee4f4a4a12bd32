"""Backbones by name, and the errors of names and arguments."""

import pytest
import torch

import clip
from clip import CLIPError, _archs, backbones
from tests.clip.conftest import same_weights


def test_same_arguments_same_model(fresh):
    first = clip.load_backbone("tiny/random")
    assert clip.load_backbone("tiny/random") is first
    assert clip.load_backbone("tiny/random", precision="bf16") is not first
    assert backbones.load_uncached("tiny/random") is not first


def test_random_weights_are_fixed_and_disturb_nothing(fresh):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = clip.load_backbone("tiny/random")
    assert torch.equal(torch.rand(3), expected)
    assert same_weights(backbones.load_uncached("tiny/random"), first.state_dict())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_precision(precision, state):
    """Matrices are rounded, norms are not; images and prompts still go through."""
    model = clip.load_backbone("tiny/random", precision=precision)
    assert model.dtype == model.visual.conv1.weight.dtype == _archs.DTYPES[precision]
    assert model.ln_final.weight.dtype == torch.float32
    features = model.encode_image(torch.rand(2, 3, 32, 32))
    assert features.dtype == model.dtype and features.isfinite().all()
    assert model.encode_text(clip.tokenize(["a cat"])).dtype == model.dtype


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_of_a_timm_tower(precision):
    model = clip.load_backbone("MobileCLIP-S1/random", precision=precision)
    assert model.image_size == (256, 256) and not model.text_tower.ignores_padding
    assert model.encode_image(torch.rand(1, 3, 256, 256)).dtype == _archs.DTYPES[precision]
    assert model.text_tower.encode_text(["a cat"]).dtype == _archs.DTYPES[precision]


def test_preprocessing():
    tiny = clip.load_backbone("tiny/random")
    assert (tiny.image_size, tiny.interpolation) == ((32, 32), "bilinear")
    assert (tiny.image_mean, tiny.image_std) == ((0.3,) * 3, (0.35,) * 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RN5O", r"no backbone named 'RN5O'; did you mean RN50\?; known: tiny, RN50, .*--list"),
        ("vit-b/16", r"did you mean ViT-B/16\?"),
        ("ViT-B-32/laion2b", r"no weights 'laion2b' of ViT-B-32; did you mean laion2b_e16.*random"),
        ("nowhere/w.pt", "no weight file at nowhere/w.pt"),
        ("xyz", r"no backbone named 'xyz'; known"),
    ],
)
def test_names_that_cannot_be(name, message):
    with pytest.raises(CLIPError, match=message):
        clip.load_backbone(name)


def test_arguments_that_cannot_be(tmp_path):
    with pytest.raises(
        CLIPError, match="ARCH is for weight files; RN50 has an architecture, got 'RN50'"
    ):
        clip.load_backbone("RN50", arch="RN50")
    with pytest.raises(CLIPError, match="no precision named 'int8'; known: fp32, fp16, bf16"):
        clip.load_backbone("RN50", precision="int8")
    (tmp_path / "w.pt").touch()
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(CLIPError, match=r"no architecture named 'ViT-B32'; did you mean ViT-B-32"):
        clip.load_backbone(str(tmp_path / "w.pt"), arch="ViT-B32")


def test_list():
    names = clip.list_backbones()
    assert names[0] == "tiny" and len(names) == len(set(names)) > 100
    assert {"ViT-L/14@336px", "ViT-B-32/laion2b_s34b_b79k", "ViT-B-16/openai"} <= set(names)
    assert {"ViT-B-16-SigLIP2/webli", "coca_ViT-B-32/laion2b_s13b_b90k"} <= set(names)


def test_the_tags_activation_wins(monkeypatch):
    """Weights that were trained with QuickGELU get it, whatever the architecture's name says."""
    seen = []
    monkeypatch.setattr(backbones, "_read_published", lambda name, published: {})
    monkeypatch.setattr(backbones, "from_state", lambda s, config, *rest: seen.append(config))
    for name in ("ViT-B/32", "ViT-B-32/metaclip_400m", "ViT-B-32/laion2b_e16"):
        with pytest.raises(AttributeError):  # the stand-in is no model
            backbones.load_uncached(name)
    assert [config["quick_gelu"] for config in seen] == [True, True, False]
