"""The text tower: equal to open_clip's own, over prompts in pieces, for every kind of tower."""

import copy
from types import SimpleNamespace

import pytest
import torch
from open_clip.transformer import Transformer

import clip
from clip import Prompts, TextTower
from clip.simple_tokenizer import tokenize

TEXTS = ["a photo of a cat.", "dog", "a photo of a very small and rather noisy blue bird, flying."]
ARCHS = ["RN50", "ViT-B-32"] + [
    pytest.param(arch, marks=pytest.mark.slow) for arch in ("RN101", "ViT-B-16", "ViT-L-14")
]


def in_pieces(tower, texts, n_shared=1):
    """Prompts whose first tokens are shared: one group per text, two texts swapped by rows."""
    tokens = tower.tokenize(texts)
    order = torch.arange(len(texts)).flip(0)
    embedded = tower.embed(tokens)
    return Prompts(
        prefix=embedded[:, :n_shared],
        suffix=embedded[order][:, n_shared : int(tower.eot(tokens).max()) + 1],
        group=torch.arange(len(texts)),
        eot=(tower.eot(tokens) - n_shared)[order],
        suffix_index=order,
    )


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_equals_open_clip(random_pair, arch):
    facade, model = random_pair(arch)
    expected = model.encode_text(tokenize(TEXTS))
    tower = facade.text_tower
    assert torch.allclose(tower.encode_text(TEXTS), expected, atol=1e-5)
    assert torch.allclose(tower.encode(in_pieces(tower, TEXTS)), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"custom": True},
        {"custom": True, "pool_type": "eos", "eos_id": 49407},
        {"custom": True, "pool_type": "last"},
        {"custom": True, "proj_bias": True},
        {"custom": True, "proj_type": "none"},
        {"custom": True, "no_causal_mask": True},
        {"custom": True, "no_causal_mask": True, "pool_type": "first"},
        {"no_causal_mask": True, "pool_type": "last", "custom": True},
        {"qk_norm": True, "scale_heads": True},
        {"context_length": 20},
    ],
    ids=str,
)
@torch.no_grad()
def test_every_kind_of_tower(small, options):
    model = small(**options)
    tower = TextTower(model)
    tokens = tower.tokenize(TEXTS)
    expected = model.encode_text(tokens)
    assert tower.out_dim == expected.shape[1] and tower.width == 32
    pool = options.get("pool_type", "argmax")
    assert tower.ignores_padding == ("no_causal_mask" not in options and pool in ("argmax", "eos"))
    assert torch.allclose(tower.encode_text(TEXTS), expected, atol=1e-6)
    assert torch.allclose(tower.encode(in_pieces(tower, TEXTS, 2)), expected, atol=1e-6)


@torch.no_grad()
def test_layout_of_older_open_clip(small):
    """Blocks that take (L, n, d) are fed so; in the other layout prompts would mix."""
    model = small()
    older = copy.deepcopy(model)
    older.transformer = Transformer(width=32, layers=2, heads=2, batch_first=False)
    older.transformer.load_state_dict(model.transformer.state_dict())
    tower = TextTower(older)
    expected = model.encode_text(tower.tokenize(TEXTS))
    assert torch.allclose(tower.encode_text(TEXTS), expected, atol=1e-6)
    assert torch.allclose(tower.encode_text(TEXTS[:1]), expected[:1], atol=1e-6)


def test_gradient_reaches_both_pieces(small):
    """And is that of the whole prompts through open_clip's own transformer."""
    model = small()
    tower = TextTower(model)
    pieces = in_pieces(tower, TEXTS, 3)
    pieces.prefix, pieces.suffix = pieces.prefix.clone(), pieces.suffix.clone()
    for tensor in (pieces.prefix, pieces.suffix):
        tensor.requires_grad_()
    tower.encode(pieces).square().sum().backward()

    shared, own = (t.detach().clone().requires_grad_() for t in (pieces.prefix, pieces.suffix))
    x = torch.cat([shared, own[pieces.suffix_index]], 1)
    mask = model.attn_mask[: x.shape[1], : x.shape[1]]
    x = model.transformer(x + model.positional_embedding[: x.shape[1]], attn_mask=mask)
    x = (
        model.ln_final(x)[torch.arange(3), 3 + pieces.eot[pieces.suffix_index]]
        @ model.text_projection
    )
    x.square().sum().backward()
    assert torch.allclose(pieces.prefix.grad, shared.grad, atol=1e-5)
    assert torch.allclose(pieces.suffix.grad, own.grad, atol=1e-5)
    assert pieces.prefix.grad.abs().sum() > 0


@torch.no_grad()
def test_what_is_behind_eot_does_not_matter(small):
    tower = TextTower(small(custom=True, no_causal_mask=True))
    pieces = in_pieces(tower, TEXTS)
    expected = tower.encode(pieces)
    behind = torch.arange(pieces.suffix.shape[1]) > pieces.eot[:, None]
    pieces.suffix = pieces.suffix.masked_fill(behind[..., None], 9.0)
    assert torch.allclose(tower.encode(pieces), expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision(precision):
    """Prompts may be learned in fp32; the tower rounds them, their gradient is fp32."""
    exact = clip.load_backbone("tiny/random").text_tower
    tower = clip.load_backbone("tiny/random", precision=precision).text_tower
    assert str(tower.dtype) == {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[precision]
    pieces = in_pieces(exact, TEXTS)
    pieces.suffix = pieces.suffix.clone().requires_grad_()
    features = tower.encode(pieces)
    assert features.dtype == tower.dtype
    features.float().square().sum().backward()
    assert pieces.suffix.grad.dtype == torch.float32 and pieces.suffix.grad.abs().sum() > 0
    close = torch.cosine_similarity(features.float(), exact.encode(pieces), dim=-1)
    assert close.min() > 0.999


def test_no_prompts(small):
    tower = TextTower(small())
    empty = Prompts(torch.zeros(1, 2, 32), torch.zeros(0, 3, 32), *[torch.zeros(0).long()] * 2)
    assert tower.encode(empty).shape == (0, 16)


def test_prompt_longer_than_the_context(small):
    tower = TextTower(small(context_length=8))
    pieces = Prompts(
        torch.zeros(1, 6, 32), torch.zeros(2, 4, 32), torch.zeros(2).long(), torch.tensor([1, 2])
    )
    with pytest.raises(clip.CLIPError, match=r"a prompt of 9 tokens .* takes 8; use fewer"):
        tower.encode(pieces)
    pieces.eot = torch.tensor([1, 1])
    assert tower.encode(pieces).shape == (2, 16)


def test_text_longer_than_the_context(small):
    tower = TextTower(small(context_length=8))
    assert tower.tokenize(["one two three"]).shape == (1, 8)
    with pytest.raises(clip.CLIPError, match=r"9 tokens does not fit .* 8: 'one two three four"):
        tower.tokenize(["cat", "one two three four five six seven"])


def test_frozen(small):
    tower = TextTower(small())
    assert not tower.train().training and not any(p.requires_grad for p in tower.parameters())


def test_towers_that_are_refused(small):
    with pytest.raises(clip.CLIPError, match="has no open_clip blocks"):
        TextTower(SimpleNamespace(text=SimpleNamespace()))
    masked = small(custom=True, no_causal_mask=True)
    masked.text.use_pad_mask = True
    with pytest.raises(clip.CLIPError, match="padding mask"):
        TextTower(masked)
    with pytest.raises(clip.CLIPError, match="one feature per token"):
        TextTower(small(custom=True, pool_type="none"))
    model = small()
    model.attn_mask = model.attn_mask.clone()
    model.attn_mask[3, 5] = 0
    with pytest.raises(clip.CLIPError, match="is not the causal one"):
        TextTower(model)


def test_many_texts_are_encoded_in_parts(monkeypatch):
    tower = clip.load_backbone("tiny/random").text_tower
    whole = tower.encode_text(TEXTS)
    monkeypatch.setattr("clip.text.PROMPTS_AT_ONCE", 2)
    counts, encode = [], tower.encode
    monkeypatch.setattr(tower, "encode", lambda p: counts.append(len(p.group)) or encode(p))
    assert torch.allclose(tower.encode_text(TEXTS), whole, atol=1e-6)
    assert counts == [2] * (len(TEXTS) // 2) + [1] * (len(TEXTS) % 2)
    assert tower.encode_text([]).shape == (0, 64)
