"""The facade: OpenAI's names over open_clip's tensors, frozen."""

import copy

import pytest
import torch

import clip
from clip.simple_tokenizer import tokenize

TEXTS = ["a photo of a cat.", "dog", "a photo of a very small blue bird."]
ARCHS = ["RN50", "ViT-B-32"] + [
    pytest.param(arch, marks=pytest.mark.slow) for arch in ("RN101", "ViT-B-16", "ViT-L-14")
]


def coop_text_features(model, embeddings, tokens):
    """What CoOp's text encoder computes with OpenAI's model, from prompt embeddings (n, L, d)."""
    x = embeddings + model.positional_embedding.type(model.dtype)
    x = model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
    x = model.ln_final(x).type(model.dtype)
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_coop_text_encoder(random_pair, arch):
    facade, model = random_pair(arch)
    tokens = tokenize(TEXTS)
    expected = model.encode_text(tokens)
    embedded = facade.token_embedding(tokens).type(facade.dtype)
    assert torch.allclose(coop_text_features(facade, embedded, tokens), expected, atol=1e-5)
    assert torch.allclose(facade.encode_text(tokens), expected, atol=1e-5)


@pytest.mark.parametrize("arch", ["RN50", "ViT-B-32"])
@torch.no_grad()
def test_images(random_pair, arch):
    facade, model = random_pair(arch)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = model.encode_image(images)
    assert torch.equal(facade.encode_image(images), expected)
    assert facade.visual.input_resolution == 224 and facade.image_size == (224, 224)
    assert facade.visual.output_dim == expected.shape[1]
    by_image, by_text = facade(images, tokenize(TEXTS))
    assert by_image.shape == (2, 3) and torch.equal(by_image, by_text.T)


def test_openai_names():
    model = clip.load_backbone("tiny/random")
    names = set(model.state_dict())
    assert {"logit_scale", "text_projection", "positional_embedding"} <= names
    assert {"token_embedding.weight", "ln_final.bias", "visual.conv1.weight"} <= names
    assert "transformer.resblocks.1.attn.in_proj_weight" in names
    assert not any(name.startswith("text_tower") for name in names)
    assert model.context_length == 77 and model.vocab_size == 49408
    assert model.dtype == torch.float32 and model.device.type == "cpu"
    assert model.transformer.layers == 2 and model.text_tower.ignores_padding


def test_frozen_and_always_in_eval():
    model = clip.load_backbone("tiny/random")
    outer = torch.nn.Sequential(model).train()
    assert not any(m.training for m in outer[0].modules())
    assert not any(p.requires_grad for p in model.parameters())


def test_weights_are_shared_and_move_together():
    model = copy.deepcopy(clip.load_backbone("tiny/random"))
    assert model.text_tower.positional_embedding is model.positional_embedding
    before = model.text_tower.encode_text(TEXTS)
    model.double()
    assert model.text_tower.encode_text(TEXTS).dtype == torch.float64
    with torch.no_grad():
        model.positional_embedding.add_(1)
    assert not torch.allclose(before.double(), model.text_tower.encode_text(TEXTS))


def test_weights_hash():
    """Says which function it is: the same in every precision, another for other weights."""
    model = clip.load_backbone("tiny/random")
    assert len(model.weights_hash) == 64
    assert clip.load_backbone("tiny/random", precision="bf16").weights_hash == model.weights_hash
    changed = copy.deepcopy(model)
    del changed.weights_hash
    with torch.no_grad():
        changed.visual.bn1.running_mean[0] += 1
    assert changed.weights_hash != model.weights_hash
    other = copy.deepcopy(model)
    del other.weights_hash
    other.config = {**other.config, "quick_gelu": False}
    assert other.weights_hash != model.weights_hash
