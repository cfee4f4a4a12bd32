"""Every family of backbones, in miniature: equal to open_clip's own model, values and gradients."""

import importlib.util
import json

import pytest
import torch

import clip
from clip import Prompts, backbones
from prompting.prompt_learner import PromptLearner
from tests.clip._families import FAMILIES, HUB_MODELS, STAND_INS, make_family

INSTALLED = importlib.util.find_spec("transformers") is not None
NAMES = ["cat", "a photo of the black deer", "St. John's wort"]
PACKED = {"clip", "pe", "metaclip2"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """``pair(family)``: the backbone of a miniature, and open_clip's own model."""
    made = {}

    def make(family):
        if family in HUB_MODELS and not INSTALLED:
            pytest.skip("transformers is not installed")
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            model = make_family(folder, family, INSTALLED)
            kind = FAMILIES[family][1]
            with pytest.MonkeyPatch.context() as patch:
                if kind and not INSTALLED:
                    patch.setattr("clip._hub.load_tokenizer", lambda *_: STAND_INS[kind])
                made[family] = backbones.load_uncached(str(folder)), model
        return made[family]

    return make


def reference(model, tokens):
    """open_clip's features (n, e) of token ids (n, L), and the embeddings (n, L, d) they are of."""
    text = getattr(model, "text", model)
    table = (
        text.transformer.get_input_embeddings() if hasattr(text, "pooler") else text.token_embedding
    )
    leaf = table(tokens).detach().requires_grad_()
    hook = table.register_forward_hook(lambda *_: leaf)
    try:
        features = model.encode_text(
            tokens, **({"normalize": False} if "CoCa" in str(type(model)) else {})
        )
    finally:
        hook.remove()
    return features, leaf


@pytest.mark.parametrize("family", FAMILIES)
def test_text_equals_open_clip(pair, family):
    """Features, and their gradients by the embeddings of every token, in prompts in pieces."""
    backbone, model = pair(family)
    tower = backbone.text_tower
    assert tower.packed == (family in PACKED)
    tokens = tower.tokenize([f"a photo of a {name}." for name in NAMES])
    expected, leaf = reference(model, tokens)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (expected * weight).sum().backward()

    start = len(tower.tokenizer.prefix_ids)
    embedded = tower.embed(tokens)
    prefix = embedded[:, : start + 2].clone().requires_grad_()
    suffix = embedded[:, start + 2 :].clone().requires_grad_()
    eot = tower.eot(tokens)
    prompts = Prompts(prefix, suffix, torch.arange(3), eot - start - 2, start=start)
    found = tower.encode(prompts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(tower.encode_tokens(tokens), expected.detach(), atol=1e-5, rtol=0)
    (found * weight).sum().backward()
    grads = torch.cat([prefix.grad, suffix.grad], 1)
    at = torch.arange(tokens.shape[1])
    words = (at >= start) & (at <= eot[:, None])  # what all groups begin with is encoded once
    scale = leaf.grad[words].abs().max()
    torch.testing.assert_close(grads[words] / scale, leaf.grad[words] / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_images_and_logits_equal_open_clip(pair, family):
    backbone, model = pair(family)
    images = torch.rand(2, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))
    features = model.encode_image(images, normalize=True)
    if isinstance(features, tuple):
        features = features[0]
    found = torch.nn.functional.normalize(backbone.encode_image(images), dim=-1)
    torch.testing.assert_close(found, features, atol=1e-5, rtol=0)
    tokens = backbone.text_tower.tokenize(NAMES)
    text = torch.nn.functional.normalize(backbone.encode_text(tokens), dim=-1)
    expected = model.logit_scale.exp() * features @ text.T
    if model.logit_bias is not None:
        expected = expected + model.logit_bias
    torch.testing.assert_close(backbone(images, tokens)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_context_of_words_is_the_sentence(pair, family):
    """Names are cleaned and tokenized in a prompt as they are in a whole sentence."""
    tower = pair(family)[0].text_tower
    learner = PromptLearner(NAMES, tower, ctx_init="a photo of_a")
    expected = tower.encode_text([f"a photo of a {name}." for name in NAMES])
    torch.testing.assert_close(tower.encode(learner()), expected, atol=1e-5, rtol=0)
    front = PromptLearner(NAMES, tower, n_ctx=2, position="front")
    assert front().prefix.shape[1] == len(tower.tokenizer.prefix_ids)
    assert tower.encode(front()).isfinite().all()


def test_preprocessing_of_the_folder(pair):
    assert pair("siglip")[0].resize_mode == "squash"
    assert pair("pe")[0].interpolation == "bilinear"
    assert pair("pe")[0].image_mean == (0.5,) * 3
    assert pair("clip")[0].resize_mode == "shortest"


@pytest.mark.parametrize("family", ["siglip", "coca", "xlm-roberta", "mobileclip"])
@torch.no_grad()
def test_low_precision(pair, family, tmp_path, monkeypatch):
    exact = pair(family)[0]
    make_family(tmp_path, family, INSTALLED)
    if not INSTALLED:
        monkeypatch.setattr("clip._hub.load_tokenizer", lambda *_: STAND_INS["t5"])
    rounded = clip.load_backbone(str(tmp_path), precision="bf16")
    assert rounded.weights_hash == exact.weights_hash
    features = rounded.text_tower.encode_text(NAMES)
    assert features.dtype == torch.bfloat16
    close = torch.cosine_similarity(features.float(), exact.text_tower.encode_text(NAMES), dim=-1)
    assert close.min() > 0.99
    assert rounded.encode_image(torch.rand(1, 3, *rounded.image_size)).dtype == torch.bfloat16


def test_random_weights_have_the_published_images():
    found = backbones._preprocess_of("ViT-B-16-SigLIP2")
    assert (found["mean"], found["resize_mode"]) == ((0.5,) * 3, "squash")
    assert backbones._preprocess_of("ViT-B-32")["mean"] == backbones.CLIP_PREPROCESS["mean"]


UNSUPPORTED = {
    "sound": {"audio_cfg": {}, "text_cfg": {}},
    "generative": {"vision_cfg": {}, "text_cfg": {}, "decoder_cfg": {}},
    "NaFlex": {"vision_cfg": {"timm_model_name": "naflexvit_base"}, "text_cfg": {}},
    "rope": {"vision_cfg": {}, "text_cfg": {"rope": True}},
    "clips": {"vision_cfg": {}, "text_cfg": {"tokenizer_mode": "clips"}},
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
def test_what_cannot_be_tuned_is_refused_with_the_reason(tmp_path, reason):
    content = {"model_cfg": {"embed_dim": 8, **UNSUPPORTED[reason]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    (tmp_path / "open_clip_model.safetensors").touch()  # is not read
    with pytest.raises(clip.CLIPError, match=f"not supported: .*{reason}"):
        clip.load_backbone(str(tmp_path))


SIGLIP, HUB = "ViT-B-16-SigLIP2/webli", "hf-hub:microsoft/BiomedCLIP"


@pytest.mark.parametrize("name", [SIGLIP, HUB, "ViT-B-16-SigLIP2/random"])
def test_what_is_missing_offline_is_named(offline, monkeypatch, name):
    """With the command that fetches it and the folder that it belongs in."""
    repository = "timm/ViT-B-16-SigLIP2" if "SigLIP" in name else "microsoft/BiomedCLIP"
    monkeypatch.setattr("clip._hub.require_transformers", lambda text_cfg: None)
    with pytest.raises(clip.CLIPError, match=f"hf download {repository}") as caught:
        clip.load_backbone(name)
    assert "not on this machine" in str(caught.value)


@pytest.mark.parametrize("name", [SIGLIP, "xlm-roberta-base-ViT-B-32/random"])
def test_without_transformers(offline, monkeypatch, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(clip.CLIPError, match="transformers, which is not installed: `make extras`"):
        clip.load_backbone(name)
